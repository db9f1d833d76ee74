"""Moments of a few disjoint groups of a set, so that one pass also tells how sure its figure is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from kdiff.eval.statistics.moments import Moments

GROUPS = 4  # each holds a [dim, dim] of float64: 34 MB for Inception
# Four numbers in an order of their own, many times over; the same with every version of numpy.
ORDERS = np.random.RandomState(0).rand(2**16, GROUPS).argsort(axis=1)


def group_of(indices: Sequence[int]) -> np.ndarray:
    """The group of each image: four in succession are in four groups, in an order drawn anew (and
    repeated after 2^18 images).

    Of i mod 4 and ten classes in turn, two groups would have the even classes only: how far the
    groups differ would tell the classes' distance, not the error.
    """
    i = np.asarray(indices, dtype=np.int64)
    return ORDERS[i // GROUPS % len(ORDERS), i % GROUPS]


class Groups:
    """Which group an image is in depends on its number alone, not on its batch or process."""

    def __init__(self, dim: int):
        self.parts = [Moments(dim) for _ in range(GROUPS)]

    def update(self, rows: np.ndarray, indices: Sequence[int]) -> None:
        """Add the features `[b, dim]` of the images with these numbers."""
        group = group_of(indices)
        for i, part in enumerate(self.parts):
            part.update(rows[group == i])

    def __add__(self, other: Groups) -> Groups:
        both = Groups(self.parts[0].dim)
        both.parts = [a + b for a, b in zip(self.parts, other.parts, strict=True)]
        return both

    @property
    def whole(self) -> Moments:
        """The moments of all images."""
        return reduce(add, self.parts)
