"""Distances to nearest neighbours, for precision and recall, and for density and coverage.

Both pairs describe a set by balls: one around each row, just reaching its k-th nearest other row.
All is computed block by block, in memory that does not grow with the dimension times the number of
rows, so the arrays may be np.memmap. The time is proportional to the product of the numbers of
rows. Balls are closed, as in the definition of precision and recall; this matters only for rows
that are in both sets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1024  # rows at a time
# Squared distances below this share of the squared lengths are rounding: the rows are the same.
SAME = 1e-13


def common_point(reference: np.ndarray, features: np.ndarray) -> np.ndarray:
    """A point amid the rows, to be subtracted first: squared distances are |x|^2 + |y|^2 - 2 x y,
    which loses the digits that the rows have in common. ValueError if the dimensions differ."""
    if reference.ndim != 2 or features.ndim != 2 or reference.shape[1] != features.shape[1]:
        raise ValueError(
            "features and reference must be [n, dim] and [m, dim], not "
            f"{list(features.shape)} and {list(reference.shape)}"
        )
    return reference[:BLOCK].mean(0, dtype=np.float64)


def squared_radii(rows: np.ndarray, k: int, origin: np.ndarray) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other, `[n]`. ValueError if there are no
    k others."""
    if k >= len(rows):
        raise ValueError(f"{len(rows)} images do not have {k} neighbours each: use more images")
    nearest = np.full((len(rows), k + 1), np.inf)  # a row is its own nearest
    for i, _, distances in squared_distances(rows, rows, origin):
        candidates = np.concatenate([nearest[i], distances], axis=1)
        nearest[i] = np.partition(candidates, k, axis=1)[:, : k + 1]
    return nearest.max(1)


def squared_distances(
    x: np.ndarray, y: np.ndarray, origin: np.ndarray
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Blocks of the squared distances between rows, and where they are, all in float64."""
    for i, a in _blocks(x, origin):
        for j, b in _blocks(y, origin):
            lengths = (a**2).sum(1)[:, None] + (b**2).sum(1)
            distances = lengths - 2 * (a @ b.T)
            distances[distances < SAME * lengths] = 0
            yield i, j, distances


def _blocks(rows: np.ndarray, origin: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        centred = rows[block] - origin
        if not np.isfinite(centred).all():
            raise ValueError("the features are not finite")
        yield block, centred
