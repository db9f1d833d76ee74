"""Density and coverage of nearest neighbours (Naeem et al. 2020)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdiff.counts import whole_number
from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.metrics.neighbours import common_point, squared_distances, squared_radii
from kdiff.eval.statistics.all_rows import AllRows


class DensityCoverage(NamedTuple):
    """Density is 0 or more; it is 1 on average for two draws from one distribution, and may exceed
    1. Coverage is in [0, 1]."""

    density: float
    coverage: float


def density_coverage(reference: np.ndarray, features: np.ndarray, *, k: int = 5) -> DensityCoverage:
    """Density: in how many balls of `reference` [m, dim] a row of `features` [n, dim] is, on
    average, divided by k; coverage: the share of those balls that have a row of the features in
    them (Naeem et al. 2020, eq. 3 and 4).

    Two draws from one distribution have density 1 and coverage 1 - prod_{i=1..k} (m - i) /
    (m + n - i) on average. ValueError if the dimensions differ, the reference has no more than k
    rows, or something is not finite.
    """
    k, origin = whole_number("k", k, 1), common_point(reference, features)
    radii = squared_radii(reference, k, origin)
    inside = np.zeros(len(reference), dtype=int)
    for i, _, distances in squared_distances(reference, features, origin):
        inside[i] += (distances <= radii[i, None]).sum(1)
    return DensityCoverage(float(inside.sum() / (k * len(features))), float((inside > 0).mean()))


def _both(kept: AllRows, reference: np.ndarray) -> list[Estimate]:
    return [(value, None) for value in density_coverage(reference, kept.rows)]


METRICS["density"] = Metric(
    label="density",
    help="Naeem et al. 2020, k = 5, --ref being images",
    stream="rows",
    needs="rows",
    compute=_both,
    least_reference=6,
    higher_is_better=True,
)
METRICS["coverage"] = Metric(
    label="coverage",
    help="the same",
    stream="rows",
    needs="rows",
    compute=_both,
    index=1,
    least_reference=6,
    higher_is_better=True,
)
