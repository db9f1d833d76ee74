"""A source of images, given batch by batch to whoever looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from kdiff.counts import whole_number
from kdiff.eval.ranks import ranks


class Source(Protocol):
    """Images by number: `Pictures` or `Generated`."""

    def __len__(self) -> int: ...

    def batches(self, batch: int, indices: Sequence[int]) -> Iterator[np.ndarray]: ...


Consumer = Callable[[np.ndarray, Sequence[int]], object]


def own_share(n: int, batch: int) -> list[int]:
    """The numbers of this process's images: with W processes, every W-th batch."""
    rank, world = ranks()
    batch = whole_number("the batch", batch, 1)
    starts = range(rank * batch, n, world * batch)
    return [i for start in starts for i in range(start, min(start + batch, n))]


def stream(source: Source, batch: int, consumers: Sequence[Consumer]) -> None:
    """Give this process's share of the source to every consumer, as (images, their numbers)."""
    mine = own_share(len(source), batch)
    done = 0
    for images in source.batches(batch, mine):
        indices = mine[done : done + len(images)]
        done += len(images)
        for consumer in consumers:
            consumer(images, indices)
