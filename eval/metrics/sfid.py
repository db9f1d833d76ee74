"""sFID: the Frechet distance of spatial features (Nash et al. 2021)."""

from __future__ import annotations

from kdiff.eval.metrics.contract import METRICS, Metric
from kdiff.eval.metrics.fid import distance_and_error

METRICS["sfid"] = Metric(
    label="sFID",
    help="Frechet distance of spatial features (Nash et al. 2021); error as for fid",
    stream="spatial",
    needs="spatial_gaussian",
    compute=distance_and_error,
    aliases=("spatial fid",),
)
