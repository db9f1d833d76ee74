"""Metrics of nearest neighbours: precision and recall, density and coverage.

Both describe a set by balls: one around each row, just reaching its k-th nearest other row. All are
computed block by block in memory that does not grow with the dimension times the number of rows,
so the arrays may be np.memmap; the time is proportional to the product of the numbers of rows.
Balls are closed, as in the definition of precision and recall; this matters only for rows that are
in both sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kdiff.counts import whole_number

BLOCK = 1024  # rows at a time
# Squared distances below this share of the squared lengths are rounding: the rows are the same.
SAME = 1e-13


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, from 0 and 1 on average for two draws from one distribution, may exceed 1; coverage
    is in [0, 1]."""

    density: float
    coverage: float


def precision_recall(reference: np.ndarray, features: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Precision: the share of `features` [n, dim] in at least one ball of `reference` [m, dim];
    recall: the share of the reference in at least one ball of the features (Kynkaanniemi et al.
    2019, eq. 1 and 2). The published figures have 50,000 rows on each side.

    ValueError if the dimensions differ, a set has no more than k rows, or something is not finite.
    """
    k, origin = whole_number("k", k, 1), _origin(reference, features)
    radii, own_radii = _radii(reference, k, origin), _radii(features, k, origin)
    precise = np.zeros(len(features), dtype=bool)
    recalled = np.zeros(len(reference), dtype=bool)
    for i, j, distances in _between(reference, features, origin):
        precise[j] |= (distances <= radii[i, None]).any(0)
        recalled[i] |= (distances <= own_radii[j]).any(1)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(reference: np.ndarray, features: np.ndarray, *, k: int = 5) -> DensityCoverage:
    """Density: in how many balls of `reference` [m, dim] a row of `features` [n, dim] is, on
    average, divided by k; coverage: the share of those balls that have a row of the features in
    them (Naeem et al. 2020, eq. 3 and 4).

    Two draws from one distribution have density 1 and coverage 1 - prod_{i=1..k} (m - i) /
    (m + n - i) on average. ValueError as for `precision_recall`.
    """
    k, origin = whole_number("k", k, 1), _origin(reference, features)
    radii = _radii(reference, k, origin)
    inside = np.zeros(len(reference), dtype=int)
    for i, _, distances in _between(reference, features, origin):
        inside[i] += (distances <= radii[i, None]).sum(1)
    return DensityCoverage(float(inside.sum() / (k * len(features))), float((inside > 0).mean()))


def _origin(reference: np.ndarray, features: np.ndarray) -> np.ndarray:
    """A point amid the rows. Squared distances are |x|^2 + |y|^2 - 2 x y, which loses the digits
    that the rows have in common, so these are taken off first."""
    if reference.ndim != 2 or features.ndim != 2 or reference.shape[1] != features.shape[1]:
        raise ValueError(
            "features and reference must be [n, dim] and [m, dim], not "
            f"{list(features.shape)} and {list(reference.shape)}"
        )
    return reference[:BLOCK].mean(0, dtype=np.float64)


def _radii(rows: np.ndarray, k: int, origin: np.ndarray) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other, `[n]`."""
    if k >= len(rows):
        raise ValueError(f"{len(rows)} images do not have {k} neighbours each: use more images")
    nearest = np.full((len(rows), k + 1), np.inf)  # a row is its own nearest
    for i, _, distances in _between(rows, rows, origin):
        candidates = np.concatenate([nearest[i], distances], axis=1)
        nearest[i] = np.partition(candidates, k, axis=1)[:, : k + 1]
    return nearest.max(1)


def _between(
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
