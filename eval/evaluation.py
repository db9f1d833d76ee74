"""One set of images to figures: what is streamed over the set, and what is made of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from kdiff.counts import whole_number
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.metrics import (
    METRICS,
    STREAMS,
    Pair,
    check_metrics,
    density_coverage_of,
    extrapolated,
    needs_logits,
)
from kdiff.eval.metrics import Metric as Metric  # those who write one find it here too
from kdiff.eval.metrics import all_metrics as all_metrics
from kdiff.eval.metrics.frechet import Gaussian
from kdiff.eval.ranks import ranks
from kdiff.eval.references import (
    Reference,
    check_comparable,
    find_reference,
    make_reference,
)
from kdiff.eval.statistics.grouped_moments import GROUPS


class Figure(NamedTuple):
    """A metric's value, its error (None where there is no estimate; see `METRICS` for what it is)
    and the number of images that it is of."""

    value: float
    error: float | None
    n: int


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
        if METRICS[name].compute is extrapolated:  # each group must have full rank
            return GROUPS * (len(self.needed["gaussian"].mean) + 1)
        if METRICS[name].compute is density_coverage_of and len(self.needed["rows"]) < 6:
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
        unused: dict[str, Any] = dict.fromkeys({"logits", "spatial"} - needed.keys())
        return features._replace(**unused)

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
    A file that has statistics and images, as guided-diffusion's, serves the metrics of both.
    `progress` is told the images of each batch and of all. ValueError as `find_reference`."""
    if isinstance(ref, Reference):
        return ref
    needs = {METRICS[name].needs for name in metrics}
    text = ref if isinstance(ref, str) else os.path.join(".", ref)  # a path is no name
    found = find_reference(text, network.name, network.resize, data)
    if isinstance(found, Reference):
        if found.images is None or "rows" not in needs:
            return found
        rows = _made(found.images(), ref, network, {"rows"}, progress)
        return replace(found, kept=rows.kept, notes=rows.notes)
    return _made(found, ref, network, needs, progress)


def _made(
    pictures: Pictures,
    ref: object,
    network: FeatureNetwork,
    needs: Container[str],
    progress: Callable[[int, int], object] | None,
) -> Reference:
    if ranks()[1] > 1:
        raise ValueError(
            "kid, precision, recall, density and coverage need one process"
            if "rows" in needs
            else f"several processes need a reference: kdiff ref make NAME --images {ref}"
        )
    told = progress or (lambda done, total: None)
    return make_reference(
        pictures.name,
        pictures,
        network,
        progress=lambda done: told(done, len(pictures)),
        spatial="spatial_gaussian" in needs,
        rows="rows" in needs,
    )


def evaluate(
    images: np.ndarray | Tensor | str | Path | Source,
    reference: Reference | str | Path = "cifar10",
    metrics: str | Sequence[str] = "fid",
    *,
    network: FeatureNetwork | None = None,
    batch: int = 64,
) -> dict[str, Figure]:
    """The figures of `images`, by the metrics' labels. They are what `kdiff.sample` returns, floats
    `[N, C, H, W]` in [-1, 1]; an array, uint8 `[N, H, W, 3]`; or anything that `open_pictures`
    takes.

    `metrics` are names of `METRICS`, a list or text such as "fid,kid", in any case; `reference` as
    `find_reference` takes it; `network` is by default FID's Inception, in the legacy_tensorflow
    mode. What is not known of the reference, and so assumed, and what belongs beside figures of
    such images, are warnings. ValueError on anything wrong.
    """
    metrics = check_metrics(metrics)
    batch = whole_number("batch", batch, 1)
    if not metrics:
        raise ValueError("give at least one metric")
    if not isinstance(reference, (Reference, str, Path)):
        raise ValueError("the reference must be a Reference, a name or a path")
    in_memory = isinstance(images, (np.ndarray, Tensor))
    if not (in_memory or isinstance(images, (str, Path)) or hasattr(images, "batches")):
        raise ValueError(
            "the images must be what kdiff.sample returns, an array, uint8 [N, H, W, 3], a path or "
            f"a source, not {type(images).__name__}"
        )
    network = network or feature_network(logits=needs_logits(metrics))
    opened: Any = images if hasattr(images, "batches") else open_pictures(images)
    found = reference_for(reference, network, metrics)
    for note in [*getattr(opened, "notes", ()), *check_comparable(found, network)]:
        warnings.warn(note, stacklevel=2)
    collector = Collector(metrics, len(opened), network, found)
    stream(opened, batch, [collector.update])
    return collector.figures()
