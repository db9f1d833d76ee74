"""Moments of a few disjoint groups of a set, so that one pass also tells how sure its figure is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from kdiff.eval.moments import Moments

GROUPS = 4  # each holds a [dim, dim] of float64: 34 MB for Inception


class Groups:
    """Image i of the set is in group i mod 4, whatever batch or process it comes in."""

    def __init__(self, dim: int):
        self.parts = [Moments(dim) for _ in range(GROUPS)]

    def update(self, rows: np.ndarray, indices: Sequence[int]) -> None:
        """Add the features `[b, dim]` of the images with these numbers."""
        group = np.asarray(indices) % GROUPS
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
