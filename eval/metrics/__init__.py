"""The metrics by name: what each takes of the images and of the reference, and computes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kdiff.eval.metrics.extrapolation import extrapolate, group_error
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.metrics.inception_score import InceptionScore
from kdiff.eval.metrics.kernel_distance import kernel_distance
from kdiff.eval.metrics.neighbours import density_coverage, precision_recall
from kdiff.eval.statistics.all_rows import Kept
from kdiff.eval.statistics.grouped_moments import Groups
from kdiff.names import normalise, unknown_name
from kdiff.plugins import plugins
from kdiff.samplers import UnknownName


@dataclass(frozen=True)
class Stream:
    """Statistics that grow by `update(rows, indices)` and add up: which part of `Features` they
    take, and how they start, given the number of images and the features' dimensions."""

    takes: str
    start: Callable[[int, int], Any]


STREAMS: Mapping[str, Stream] = {
    "pool": Stream("pool", lambda n, dim: Groups(dim)),
    "spatial": Stream("spatial", lambda n, dim: Groups(dim)),
    "rows": Stream("pool", Kept),
    "is": Stream("logits", InceptionScore),
    "is-openai": Stream("logits", partial(InceptionScore, convention="openai")),
    "is-guided-diffusion": Stream("logits", partial(InceptionScore, convention="guided-diffusion")),
}

Pair = tuple[float, float | None]


def _frechet(groups: Groups, reference: Gaussian) -> list[Pair]:
    enough = min(part.n for part in groups.parts) > 1
    error = group_error(reference, groups.parts) if enough else None
    return [(frechet_distance(reference, groups.whole), error)]


def extrapolated(groups: Groups, reference: Gaussian) -> list[Pair]:
    return [extrapolate(reference, groups.parts)]


def _score(scores: InceptionScore, _: None) -> list[Pair]:
    return [(scores.mean, scores.std)]


def _kernel(kept: Kept, reference: np.ndarray) -> list[Pair]:
    return [kernel_distance(reference, kept.rows)]


def _precision_recall(kept: Kept, reference: np.ndarray) -> list[Pair]:
    return [(value, None) for value in precision_recall(reference, kept.rows)]


def density_coverage_of(kept: Kept, reference: np.ndarray) -> list[Pair]:
    return [(value, None) for value in density_coverage(reference, kept.rows)]


@dataclass(frozen=True)
class Metric:
    """`compute(statistics, what the reference has)` gives a list of (value, error), of which this
    metric is one. `needs`: the reference's attribute, "" if none; `least`: images;
    `higher_is_better` is for reports."""

    label: str
    help: str
    stream: str
    needs: str
    compute: Callable[[Any, Any], list[Pair]]
    index: int = 0
    least: int = 2
    higher_is_better: bool = False


METRICS: dict[str, Metric] = {
    "fid": Metric(
        "FID",
        "Frechet distance (Heusel et al. 2017); error: standard error, from four groups of images",
        "pool",
        "gaussian",
        _frechet,
    ),
    "fid-inf": Metric(
        "FID_inf",
        "FID extrapolated to infinitely many images (Chong & Forsyth 2020); error: jackknife",
        "pool",
        "gaussian",
        extrapolated,
    ),
    "sfid": Metric(
        "sFID",
        "Frechet distance of spatial features (Nash et al. 2021); error as for fid",
        "spatial",
        "spatial_gaussian",
        _frechet,
    ),
    "is": Metric(
        "IS",
        "Inception Score as torch-fidelity's; error: std over 10 splits",
        "is",
        "",
        _score,
        least=10,
        higher_is_better=True,
    ),
    "is-openai": Metric(
        "IS-openai",
        "Inception Score in the given order (Salimans et al. 2016); error: std over 10 splits",
        "is-openai",
        "",
        _score,
        least=10,
        higher_is_better=True,
    ),
    "is-guided-diffusion": Metric(
        "IS-guided-diffusion",
        "Inception Score over splits of 5,000 (Dhariwal & Nichol 2021); no error",
        "is-guided-diffusion",
        "",
        _score,
        higher_is_better=True,
    ),
    "kid": Metric(
        "KID",
        "Kernel distance (Binkowski et al. 2018), --ref being images; error: std over 100 subsets"
        " of 1,000",
        "rows",
        "rows",
        _kernel,
    ),
    "precision": Metric(
        "precision",
        "Kynkaanniemi et al. 2019, k = 3, --ref being images",
        "rows",
        "rows",
        _precision_recall,
        least=4,
        higher_is_better=True,
    ),
    "recall": Metric(
        *("recall", "the same", "rows", "rows", _precision_recall, 1),
        least=4,
        higher_is_better=True,
    ),
    "density": Metric(
        "density",
        "Naeem et al. 2020, k = 5, --ref being images",
        "rows",
        "rows",
        density_coverage_of,
        higher_is_better=True,
    ),
    "coverage": Metric(
        *("coverage", "the same", "rows", "rows", density_coverage_of, 1),
        higher_is_better=True,
    ),
}


# What other libraries call them.
ALIASES = {
    "frechet_inception_distance": "fid",
    "frechet distance": "fid",
    "fd": "fid",
    "inception_score": "is",
    "isc": "is",
    "kernel_inception_distance": "kid",
    "is-adm": "is-guided-diffusion",
    "fid-infinity": "fid-inf",
    "spatial fid": "sfid",
}


def all_metrics() -> Mapping[str, Metric]:
    """`METRICS`, with those of other packages."""
    for name, metric in plugins("kdiff.metrics").items():
        METRICS.setdefault(name, metric)
    return METRICS


def check_metrics(names: str | Iterable[str]) -> list[str]:
    """The names in METRICS of these, each once: a list, or text as `fid,kid`. They are known by
    their labels and aliases too; case, spaces and punctuation do not count.

    UnknownName, with the nearest, if one is none of METRICS, ValueError if one is no name.
    """
    texts = names.split(",") if isinstance(names, str) else names
    texts = list(texts) if isinstance(texts, Iterable) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"metrics must be names such as fid, not {names!r:.80}")
    return list(dict.fromkeys(_metric(text) for text in texts if text.strip()))


def _metric(text: str) -> str:
    for metrics in (lambda: METRICS, all_metrics):  # plug-ins only if they are needed
        known = {normalise(alias): name for alias, name in ALIASES.items()}
        known |= {normalise(metric.label): name for name, metric in metrics().items()}
        known |= {normalise(name): name for name in metrics()}
        if normalise(text) in known:
            return known[normalise(text)]
    raise UnknownName(unknown_name("metric", text, METRICS))


def needs_logits(metrics: Iterable[str]) -> bool:
    return any(METRICS[name].compute is _score for name in metrics)
