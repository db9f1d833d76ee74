"""All features of a set, for the metrics that need every one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import numpy as np

LIMIT = 2**28  # bytes; larger sets lie in a temporary file


def _reserve(file: int, size: int) -> None:
    """OSError if the disk has no room: writing to a map that has none ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)


class Kept:
    """Rows `[n, dim]` in float32, by the number of their image."""

    def __init__(self, n: int, dim: int):
        self.filled = np.zeros(n, dtype=bool)
        self._all: np.ndarray
        if n * dim * 4 <= LIMIT:
            self._all = np.empty((n, dim), dtype=np.float32)
        else:
            with tempfile.TemporaryFile() as file:  # which goes when the map goes
                _reserve(file.fileno(), n * dim * 4)
                self._all = np.memmap(file, dtype=np.float32, shape=(n, dim))

    def update(self, rows: np.ndarray, indices: Sequence[int] | np.ndarray) -> None:
        """Keep the features `[b, dim]` of the images with these numbers."""
        self._all[indices] = rows
        self.filled[indices] = True

    def __add__(self, other: Kept) -> Kept:
        both = Kept(*self._all.shape)
        for part in (self, other):
            both.update(part._all[part.filled], np.flatnonzero(part.filled))
        return both

    @property
    def rows(self) -> np.ndarray:
        """`[n, dim]`. ValueError if some are still missing."""
        if not self.filled.all():
            raise ValueError(f"{(~self.filled).sum()} of {len(self.filled)} images are missing")
        return self._all
