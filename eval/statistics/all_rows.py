"""All features of a set, for the metrics that need every one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

LIMIT = 2**28  # bytes; larger sets lie in a temporary file


def _reserve(file: int, size: int) -> None:
    """OSError if the disk is full: writing to a map on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)


def _room(n: int, dim: int) -> np.ndarray:
    """`[n, dim]` in memory, or in a temporary file if it is large."""
    if n * dim * 4 <= LIMIT:
        return np.empty((n, dim), dtype=np.float32)
    with tempfile.TemporaryFile() as file:  # which goes when the map goes
        _reserve(file.fileno(), n * dim * 4)
        return np.memmap(file, dtype=np.float32, shape=(n, dim))


class AllRows:
    """Rows `[n, dim]` in float32, by the number of their image."""

    def __init__(self, n: int, dim: int):
        self.filled = np.zeros(n, dtype=bool)
        self._all = _room(n, dim)

    def update(self, rows: np.ndarray, indices: Sequence[int] | np.ndarray) -> None:
        """Keep the features `[b, dim]` of the images with these numbers."""
        self._all[indices] = rows
        self.filled[indices] = True

    def __add__(self, other: AllRows) -> AllRows:
        both = AllRows(*self._all.shape)
        for part in (self, other):
            both.update(part._all[part.filled], np.flatnonzero(part.filled))
        return both

    def __getstate__(self) -> dict[str, Any]:
        """Between processes go the rows that are there, without the gaps."""
        present = np.asarray(self._all[self.filled])
        return {"filled": self.filled, "present": present}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.filled, present = state["filled"], state["present"]
        self._all = _room(len(self.filled), present.shape[1])
        self._all[self.filled] = present

    @property
    def rows(self) -> np.ndarray:
        """`[n, dim]`. ValueError if some are still missing."""
        if not self.filled.all():
            raise ValueError(f"{(~self.filled).sum()} of {len(self.filled)} images are missing")
        return self._all
