"""Moments of four disjoint groups of a set: one pass gives a figure and how certain it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from kdiff.eval.statistics.moments import Moments

GROUPS = 4  # each holds a [dim, dim] of float64: 34 MB for Inception
# Many random orders of the four groups, drawn by a generator that is the same in every NumPy.
ORDERS = np.random.RandomState(0).rand(2**16, GROUPS).argsort(axis=1)


def group_of(indices: Sequence[int]) -> np.ndarray:
    """The group of each image. Each four consecutive images go into four different groups, in a
    random order; the orders repeat after 2^18 images.

    A fixed order would be wrong: with ten classes in turn, i mod 4 would put all even classes into
    two of the groups. The differences between groups would then measure how far apart the classes
    are, and not the error.
    """
    i = np.asarray(indices, dtype=np.int64)
    return ORDERS[i // GROUPS % len(ORDERS), i % GROUPS]


class GroupedMoments:
    """The moments of each group, in `parts`. An image's number alone decides its group, so neither
    batches nor processes matter."""

    def __init__(self, dim: int):
        self.parts = [Moments(dim) for _ in range(GROUPS)]

    def update(self, rows: np.ndarray, indices: Sequence[int]) -> None:
        """Add the features `[b, dim]` of the images with these numbers."""
        group = group_of(indices)
        for i, part in enumerate(self.parts):
            part.update(rows[group == i])

    def __add__(self, other: GroupedMoments) -> GroupedMoments:
        both = GroupedMoments(self.parts[0].dim)
        both.parts = [a + b for a, b in zip(self.parts, other.parts, strict=True)]
        return both

    @property
    def whole(self) -> Moments:
        """The moments of all images."""
        return reduce(add, self.parts)
