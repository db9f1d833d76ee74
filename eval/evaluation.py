"""From a set of images to figures: statistics are collected as the images come, and metrics are
computed from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from kdiff.counts import whole_number
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.images.streaming import Source as Source
from kdiff.eval.images.streaming import own_share, stream
from kdiff.eval.metrics import METRICS, Estimate, check_metrics, needs_logits
from kdiff.eval.metrics import Metric as Metric  # authors of metrics may import it from here too
from kdiff.eval.metrics import all_metrics as all_metrics
from kdiff.eval.ranks import gather, share
from kdiff.eval.references import Reference, check_comparable, find_reference, make_reference
from kdiff.eval.references.making import BATCH, collect
from kdiff.eval.statistics.collection import Collection


class Figure(NamedTuple):
    """A metric's value, its error (None where there is no estimate; the metric's help says what it
    is) and the number of images."""

    value: float
    error: float | None
    n: int


class Collector:
    """Figures of one set of `n` images that come in portions; collectors of portions add up.

    ValueError at once if the reference lacks what a metric needs, or the images are too few for
    one; UnknownName for a metric that is not in `METRICS`.
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
        chosen = {name: METRICS[name] for name in self.metrics}
        self.parts = {name: metric.part_of(reference) for name, metric in chosen.items()}
        for name, metric in chosen.items():
            metric.check_sizes(name, n, self.parts[name])
        users = {metric.statistic: name for name, metric in chosen.items()}
        widths = [metric.width(self.parts[name]) for name, metric in chosen.items()]
        self.collection = Collection(users, n, dict(filter(None, widths)))

    def update(self, images: np.ndarray, indices: Sequence[int]) -> None:
        """Add images, uint8 `[b, H, W, 3]`, with their numbers from 0 to n - 1. ValueError if the
        network lacks what a metric needs, or its features are not finite or not the reference's."""
        self.add(self.look(images), indices)

    def look(self, images: np.ndarray) -> Features:
        """What `add` needs of the images. ValueError if the network lacks what a metric needs."""
        assert self.network is not None
        return self.collection.look(self.network, images)

    def add(self, features: Features, indices: Sequence[int]) -> None:
        """Add what `look` saw of the images with these numbers. Errors as `update`."""
        self.collection.add(features, indices)

    def __add__(self, other: Collector) -> Collector:
        both = Collector.__new__(Collector)
        both.__dict__.update(self.__dict__)
        both.collection = self.collection + other.collection
        return both

    def __getstate__(self) -> dict[str, Any]:
        """Only the statistics go from process to process."""
        return {**self.__dict__, "network": None, "parts": {}}

    def figures(self) -> dict[str, Figure]:
        """All metrics, by their labels. ValueError if one is not finite."""
        assert self.network is not None
        computed: dict[Any, list[Estimate]] = {}
        figures = {}
        for name in self.metrics:
            metric = METRICS[name]
            key = (metric.compute, metric.stream, metric.needs)
            if key not in computed:
                sums = self.collection.sums[metric.statistic.name]
                computed[key] = metric.compute(sums, self.parts[name])
            value, error = computed[key][metric.index]
            if not np.isfinite([value, error or 0]).all():
                raise ValueError(f"{name} is {value}, with an error of {error}")
            figures[self.network.label(metric.label)] = Figure(value, error, self.n)
        return figures


def reference_for(
    ref: Reference | str | Path,
    network: FeatureNetwork,
    metrics: Iterable[str],
    data: str | Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Reference:
    """What `find_reference` finds; of images, the statistics that these metrics need, made now.
    A file with both statistics and images, such as guided-diffusion's, serves the metrics of both.
    `progress` is told the images of each batch, and of all that this process looks at. ValueError
    as `find_reference`."""
    if isinstance(ref, Reference):
        return ref
    text = ref if isinstance(ref, str) else os.path.join(".", ref)  # a path is no name
    found = find_reference(text, network.name, network.resize, data)
    needed = [METRICS[name].reference_statistic for name in metrics]
    wanted = [statistic for statistic in dict.fromkeys(needed) if statistic is not None]
    if not isinstance(found, Reference):
        told = _progress_of(found, progress)
        return make_reference(found.name, found, network, BATCH, told, statistics=wanted)
    # The images may be a part of those that the statistics in the file describe.
    wanted = [s for s in wanted if s.name not in found.statistics and s.prefix is None]
    if found.images is None or not wanted:
        return found
    pictures = found.images()
    made = collect(pictures, network, wanted, BATCH, _progress_of(pictures, progress))
    notes = tuple(f"reference {pictures.name}: {note}" for note in pictures.notes)
    return replace(found, statistics={**found.statistics, **made}, notes=notes)


def _progress_of(
    pictures: Pictures, progress: Callable[[int, int], object] | None
) -> Callable[[int], object] | None:
    total = len(own_share(len(pictures), BATCH))
    return None if progress is None else lambda done: progress(done, total)


def evaluate(
    images: np.ndarray | Tensor | str | Path | Source,
    reference: Reference | str | Path = "cifar10",
    metrics: str | Sequence[str] = "fid",
    *,
    network: FeatureNetwork | None = None,
    batch: int = 64,
) -> dict[str, Figure]:
    """The figures of `images`, by the metrics' labels. The images are what `kdiff.sample` returns,
    floats `[N, C, H, W]` in [-1, 1]; an array, uint8 `[N, H, W, 3]`; or anything that
    `open_pictures` takes.

    `metrics` are names of `METRICS`, a list or text such as "fid,kid", in any case. `reference` is
    what `find_reference` takes. `network` is by default FID's Inception, in the legacy_tensorflow
    mode. Warnings say what the reference does not record, and so is assumed, and what else belongs
    beside the figures. Under torchrun the processes share the images, and all get the figures.
    ValueError on anything wrong.
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
    whole = gather(collector)
    return share(None if whole is None else whole.figures())
