"""Precision and recall of nearest neighbours (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdiff.counts import whole_number
from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.metrics.neighbours import common_point, squared_distances, squared_radii
from kdiff.eval.statistics.all_rows import AllRows


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


def precision_recall(reference: np.ndarray, features: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Precision: the share of `features` [n, dim] in at least one ball of `reference` [m, dim];
    recall: the share of the reference in at least one ball of the features (Kynkaanniemi et al.
    2019, eq. 1 and 2). The published figures have 50,000 rows on each side.

    ValueError if the dimensions differ, a set has no more than k rows, or something is not finite.
    """
    k, origin = whole_number("k", k, 1), common_point(reference, features)
    radii, own_radii = (squared_radii(rows, k, origin) for rows in (reference, features))
    precise = np.zeros(len(features), dtype=bool)
    recalled = np.zeros(len(reference), dtype=bool)
    for i, j, distances in squared_distances(reference, features, origin):
        precise[j] |= (distances <= radii[i, None]).any(0)
        recalled[i] |= (distances <= own_radii[j]).any(1)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def _both(kept: AllRows, reference: np.ndarray) -> list[Estimate]:
    return [(value, None) for value in precision_recall(reference, kept.rows)]


METRICS["precision"] = Metric(
    label="precision",
    help="Kynkaanniemi et al. 2019, k = 3, --ref being images",
    stream="rows",
    needs="rows",
    compute=_both,
    least=4,
    least_reference=4,
    higher_is_better=True,
)
METRICS["recall"] = Metric(
    label="recall",
    help="the same",
    stream="rows",
    needs="rows",
    compute=_both,
    index=1,
    least=4,
    least_reference=4,
    higher_is_better=True,
)
