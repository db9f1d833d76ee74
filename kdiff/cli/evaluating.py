"""The options that choose metrics, a feature network and a reference, in every command that has
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from kdiff.cli.lists import as_list
from kdiff.cli.paths import UserPath, not_empty
from kdiff.eval.evaluation import check_metrics, needs_logits, reference_for
from kdiff.eval.features import DEFAULT_FEATURES, FeatureNetwork, feature_network
from kdiff.eval.features.resize import MODES
from kdiff.eval.ranks import ranks
from kdiff.eval.references import Reference, check_comparable

data_option = click.option(
    "--data",
    type=UserPath(),
    help="For cifar10:train and cifar10:test: torchvision's folder, or an .npz.",
)


def evaluation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --ref, --features, --resize, --weights and --data; the command gets them as
    `**evaluating`, for `choose_evaluation`."""
    options = [
        click.option(
            "--ref",
            default="cifar10",
            callback=not_empty,
            help="A name (`kdiff ref list`), an .npz with mu and sigma, or images.",
        ),
        click.option(
            "--features", default=DEFAULT_FEATURES, help="The feature network; of a sweep, a list."
        ),
        click.option(
            "--resize", type=click.Choice(list(MODES)), help="[default: legacy_tensorflow]"
        ),
        click.option("--weights", type=UserPath(), help="Inception's weights, if elsewhere."),
        data_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def progress_bar(total: int | None, **settings: Any) -> tqdm:
    """A bar over images, of the first process alone, if it has a terminal."""
    return tqdm(total=total, unit="image", disable=None if ranks()[0] == 0 else True, **settings)


def choose_metrics(text: str) -> list[str]:
    """`fid,kid`. ValueError if the list is empty, UnknownName for a metric that is not known."""
    return check_metrics(as_list("--metrics", text))


def choose_evaluation(
    metrics: list[str],
    device: Any,
    ref: str,
    features: str,
    resize: str | None,
    weights: Path | None,
    data: Path | None,
) -> tuple[FeatureNetwork, Reference, list[str]]:
    """The network, the reference (made now, if --ref names images), and lines that belong beside
    their figures. ValueError if one of them cannot be had, or they do not fit together."""
    network = feature_network(
        features, resize=resize, weights=weights, device=device, logits=needs_logits(metrics)
    )
    with progress_bar(None, desc="reference", leave=False, delay=1) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        reference = reference_for(ref, network, metrics, data, show)
    return network, reference, check_comparable(reference, network)
