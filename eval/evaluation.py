"""One set of images to figures: what is streamed over the set, and what is made of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kdiff.eval.extrapolation import extrapolate, group_error
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.frechet import Gaussian, frechet_distance
from kdiff.eval.groups import GROUPS, Groups
from kdiff.eval.inception_score import InceptionScore
from kdiff.eval.kept import Kept
from kdiff.eval.kernel_distance import kernel_distance
from kdiff.eval.neighbours import density_coverage, precision_recall
from kdiff.eval.pictures import open_pictures
from kdiff.eval.ranks import ranks
from kdiff.eval.references import (
    Reference,
    check_comparable,
    find_reference,
    make_reference,
)
from kdiff.samplers import UnknownName
from kdiff.samplers.plugins import plugins
from kdiff.samplers.registry import unknown_name


class Figure(NamedTuple):
    """A metric's value, its error (None where there is no estimate; see `METRICS` for what it is)
    and the number of images that it is of."""

    value: float
    error: float | None
    n: int


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


def _extrapolated(groups: Groups, reference: Gaussian) -> list[Pair]:
    return [extrapolate(reference, groups.parts)]


def _score(scores: InceptionScore, _: None) -> list[Pair]:
    return [(scores.mean, scores.std)]


def _kernel(kept: Kept, reference: np.ndarray) -> list[Pair]:
    return [kernel_distance(reference, kept.rows)]


def _precision_recall(kept: Kept, reference: np.ndarray) -> list[Pair]:
    return [(value, None) for value in precision_recall(reference, kept.rows)]


def _density_coverage(kept: Kept, reference: np.ndarray) -> list[Pair]:
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
        _extrapolated,
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
        _density_coverage,
        higher_is_better=True,
    ),
    "coverage": Metric(
        *("coverage", "the same", "rows", "rows", _density_coverage, 1),
        higher_is_better=True,
    ),
}


def all_metrics() -> Mapping[str, Metric]:
    """`METRICS`, with those of other packages."""
    for name, metric in plugins("kdiff.metrics").items():
        METRICS.setdefault(name, metric)
    return METRICS


def check_metrics(names: Iterable[str]) -> list[str]:
    """UnknownName, with the nearest, if one is none of `METRICS`."""
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in METRICS and name not in all_metrics():
            raise UnknownName(unknown_name("metric", name, METRICS))
    return names


def needs_logits(metrics: Iterable[str]) -> bool:
    return any(METRICS[name].compute is _score for name in metrics)


class Collector:
    """Figures of one set of `n` images that come in portions; collectors of portions add up.

    ValueError at once if the reference lacks what a metric needs, UnknownName for a metric that is
    none of `METRICS`.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        n: int,
        network: FeatureNetwork,
        reference: Reference | None = None,
    ):
        self.metrics, self.n = check_metrics(metrics), n
        self.network: FeatureNetwork | None = network
        self.needed = {
            METRICS[name].needs: self._from(reference, METRICS[name].needs) for name in self.metrics
        }
        for name in self.metrics:
            least = self._least(name)
            if n < least:
                raise ValueError(f"{name} needs at least {least:,} images, not {n:,}")
        self.streams: dict[str, Any] = {}

    @staticmethod
    def _from(reference: Reference | None, needs: str) -> Any:
        if not needs:
            return None
        if reference is None:
            raise ValueError("a reference is needed")
        found = getattr(reference, needs)
        if isinstance(found, Gaussian):
            found.factor  # noqa: B018  that it is a covariance is known before anything is computed
        return found

    def _least(self, name: str) -> int:
        if METRICS[name].compute is _extrapolated:  # each group must have full rank
            return GROUPS * (len(self.needed["gaussian"].mean) + 1)
        if METRICS[name].compute is _density_coverage and len(self.needed["rows"]) < 6:
            raise ValueError(f"{name} needs at least 6 images in the reference")
        return METRICS[name].least

    def update(self, images: np.ndarray, indices: Sequence[int]) -> None:
        """Add images, uint8 `[b, H, W, 3]`, with their numbers from 0 to n - 1. ValueError if the
        network lacks what a metric needs, or its features are not finite or not the reference's."""
        self.add(self.look(images), indices)

    def look(self, images: np.ndarray) -> Features:
        """What `add` needs of the images. ValueError if the network lacks what a metric needs."""
        assert self.network is not None
        features = self.network(images)
        needed = {STREAMS[METRICS[name].stream].takes: name for name in self.metrics}
        for part, metric in needed.items():
            if getattr(features, part) is None:
                what = "spatial features" if part == "spatial" else part
                raise ValueError(f"{self.network.name} has no {what}, which {metric} needs")
        unused = {"logits", "spatial"} - needed.keys()
        return features._replace(**dict.fromkeys(unused))

    def add(self, features: Features, indices: Sequence[int]) -> None:
        """Add what `look` saw of the images with these numbers. Errors as `update`."""
        for name in {METRICS[metric].stream for metric in self.metrics}:
            rows = getattr(features, STREAMS[name].takes)
            gaussian = self.needed.get("gaussian")
            if name == "pool" and gaussian is not None and rows.shape[1] != len(gaussian.mean):
                raise ValueError(
                    f"the features have {rows.shape[1]} dimensions, the reference "
                    f"{len(gaussian.mean)}"
                )
            if name not in self.streams:
                self.streams[name] = STREAMS[name].start(self.n, rows.shape[1])
            self.streams[name].update(rows, indices)

    def __add__(self, other: Collector) -> Collector:
        both = Collector.__new__(Collector)
        both.__dict__.update(self.__dict__)
        both.streams = dict(self.streams)
        for name, stream in other.streams.items():
            both.streams[name] = both.streams[name] + stream if name in both.streams else stream
        return both

    def __getstate__(self) -> dict[str, Any]:
        """Between processes go the statistics alone."""
        return {**self.__dict__, "network": None, "needed": {}}

    def figures(self) -> dict[str, Figure]:
        """All metrics, by their labels. ValueError if one is not finite."""
        assert self.network is not None
        computed: dict[Any, list[Pair]] = {}
        figures = {}
        for name in self.metrics:
            metric = METRICS[name]
            key = (metric.compute, metric.stream)
            if key not in computed:
                statistics = self.streams[metric.stream]
                computed[key] = metric.compute(statistics, self.needed[metric.needs])
            value, error = computed[key][metric.index]
            if not np.isfinite([value, error or 0]).all():
                raise ValueError(f"{name} is {value}, with an error of {error}")
            figures[self.network.label(metric.label)] = Figure(value, error, self.n)
        return figures


class Source(Protocol):
    """Images by number: `Pictures` or `Generated`."""

    def __len__(self) -> int: ...

    def batches(self, batch: int, indices: Sequence[int]) -> Iterator[np.ndarray]: ...


Consumer = Callable[[np.ndarray, Sequence[int]], object]


def stream(source: Source, batch: int, consumers: Sequence[Consumer]) -> None:
    """Give every consumer this process's share of the source: each process takes every so-manyth
    batch."""
    rank, world = ranks()
    n = len(source)
    mine = [
        i
        for start in range(rank * batch, n, world * batch)
        for i in range(start, min(start + batch, n))
    ]
    done = 0
    for images in source.batches(batch, mine):
        indices = mine[done : done + len(images)]
        done += len(images)
        for consumer in consumers:
            consumer(images, indices)


def reference_for(
    ref: Reference | str | Path,
    network: FeatureNetwork,
    metrics: Iterable[str],
    data: str | Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Reference:
    """What `find_reference` finds; of images, the statistics that these metrics need, computed now.
    `progress` is told the images of each batch and of all. ValueError as `find_reference`."""
    if isinstance(ref, Reference):
        return ref
    text = ref if isinstance(ref, str) else os.path.join(".", ref)  # a path is no name
    found = find_reference(text, network.name, network.resize, data)
    if isinstance(found, Reference):
        return found
    needs = {METRICS[name].needs for name in metrics}
    if ranks()[1] > 1:
        raise ValueError(
            "kid, precision, recall, density and coverage need one process"
            if "rows" in needs
            else f"several processes need a reference: kdiff ref make NAME --images {ref}"
        )
    told = progress or (lambda done, total: None)
    return make_reference(
        found.name,
        found,
        network,
        progress=lambda done: told(done, len(found)),
        spatial="spatial_gaussian" in needs,
        rows="rows" in needs,
    )


def evaluate(
    images: np.ndarray | str | Path | Source,
    reference: Reference | str | Path = "cifar10",
    metrics: str | Sequence[str] = "fid",
    *,
    network: FeatureNetwork | None = None,
    batch: int = 64,
) -> dict[str, Figure]:
    """The figures of `images`, an array, uint8 `[N, H, W, 3]`, or anything that `open_pictures`
    takes, by the metrics' labels.

    `metrics` are names of `METRICS`; `reference` as `find_reference` takes it; `network` is by
    default FID's Inception, in the legacy_tensorflow mode. What is not known of the reference, and
    so assumed, and what belongs beside figures of such images, are warnings. ValueError on anything
    wrong.
    """
    metrics = check_metrics([metrics] if isinstance(metrics, str) else metrics)
    if not metrics or batch < 1:
        raise ValueError("give at least one metric, and a batch of at least 1")
    if not isinstance(reference, (Reference, str, Path)):
        raise ValueError("the reference must be a Reference, a name or a path")
    if not (isinstance(images, (np.ndarray, str, Path)) or hasattr(images, "batches")):
        raise ValueError("the images must be an array, uint8 [N, H, W, 3], a path or a source")
    network = network or feature_network(logits=needs_logits(metrics))
    opened = open_pictures(images) if isinstance(images, (np.ndarray, str, Path)) else images
    found = reference_for(reference, network, metrics)
    for note in [*getattr(opened, "notes", ()), *check_comparable(found, network)]:
        warnings.warn(note, stacklevel=2)
    collector = Collector(metrics, len(opened), network, found)
    stream(opened, batch, [collector.update])
    return collector.figures()
