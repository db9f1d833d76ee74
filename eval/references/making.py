"""References from images: their statistics are collected as the judged images' are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kdiff.eval.features import FeatureNetwork
from kdiff.eval.images.pictures import Pictures
from kdiff.eval.images.streaming import stream
from kdiff.eval.ranks import gather, share
from kdiff.eval.references.reference import Reference
from kdiff.eval.statistics import Statistic, find_statistic
from kdiff.eval.statistics.collection import Collection

BATCH = 64

Progress = Callable[[int], object]


def make_reference(
    name: str,
    pictures: Pictures,
    network: FeatureNetwork,
    batch: int = BATCH,
    progress: Progress | None = None,
    spatial: bool = False,
    rows: bool = False,
    statistics: Iterable[str | Statistic] = (),
) -> Reference:
    """Statistics of all `pictures`, in constant memory unless all `rows` are kept: the mean and
    covariance of the features, of the `spatial` features too, and further `statistics`.

    `progress` is told how many images each batch had. Under torchrun the processes share the
    images, and all get the reference. ValueError if the network lacks what a statistic takes.
    """
    wanted = ["gaussian", *["spatial_gaussian"] * spatial, *["rows"] * rows, *statistics]
    collected = collect(pictures, network, wanted, batch, progress)
    return Reference(
        name=name,
        n=len(pictures),
        features=network.name,
        resize=network.resize,
        weights=network.weights,
        source=pictures.name,
        created=share(datetime.now(UTC).isoformat(timespec="seconds")),
        statistics=collected,
        notes=tuple(f"reference {name}: {note}" for note in pictures.notes),
    )


def collect(
    pictures: Pictures,
    network: FeatureNetwork,
    statistics: Iterable[str | Statistic],
    batch: int = BATCH,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The finished statistics of all pictures by name, in every process. ValueError as
    `make_reference`."""
    wanted = dict.fromkeys(map(find_statistic, statistics), "the reference")
    collection = Collection(wanted, len(pictures))
    stream(
        pictures,
        batch,
        [
            lambda images, numbers: collection.add(collection.look(network, images), numbers),
            lambda images, numbers: progress and progress(len(images)),
        ],
    )
    whole = gather(collection)
    return share(None if whole is None else whole.finished())
