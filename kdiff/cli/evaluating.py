"""The options that choose metrics, a feature network and a reference, for every command that has
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from kdiff.eval.evaluation import check_metrics, needs_logits, needs_of_reference
from kdiff.eval.features import DEFAULT_FEATURES, FeatureNetwork, feature_network
from kdiff.eval.pictures import Pictures
from kdiff.eval.ranks import ranks
from kdiff.eval.references import Reference, check_comparable, find_reference, make_reference
from kdiff.eval.resize import MODES


def evaluation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --ref to --data; the command gets them as `**evaluating`, for `choose_evaluation`."""
    options = [
        click.option(
            "--ref",
            default="cifar10",
            help="A name (`kdiff ref list`), an .npz with mu and sigma, or images.",
        ),
        click.option("--features", default=DEFAULT_FEATURES, help="The feature network."),
        click.option(
            "--resize", type=click.Choice(list(MODES)), help="[default: legacy_tensorflow]"
        ),
        click.option(
            "--weights", type=click.Path(path_type=Path), help="Inception's weights, if elsewhere."
        ),
        click.option("--data", type=click.Path(path_type=Path), help="Where cifar10:train is."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def choose_metrics(text: str) -> list[str]:
    """`fid,kid`. UnknownName if one is none of `METRICS`."""
    return check_metrics([part.strip().lower() for part in text.split(",")])


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
    their figures. ValueError if they are not there, or do not go together."""
    network = feature_network(
        features, resize=resize, weights=weights, device=device, logits=needs_logits(metrics)
    )
    found = find_reference(ref, network.name, network.resize, data)
    if isinstance(found, Pictures):
        found = _make(found, network, metrics)
    return network, found, check_comparable(found, network)


def _make(pictures: Pictures, network: FeatureNetwork, metrics: list[str]) -> Reference:
    if ranks()[1] > 1:
        raise ValueError(
            f"with several processes, make the reference first: kdiff ref make NAME --images "
            f"{pictures.name}"
        )
    with tqdm(total=len(pictures), unit="image", desc="reference", disable=None) as bar:
        return make_reference(
            pictures.name,
            pictures,
            network,
            progress=bar.update,
            spatial=needs_of_reference(metrics, "spatial_gaussian"),
            rows=needs_of_reference(metrics, "rows"),
        )
