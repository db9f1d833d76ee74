"""FID: the Frechet distance of features, and its standard error from four groups of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.statistics.grouped_moments import GroupedMoments
from kdiff.eval.statistics.moments import Moments


def group_error(reference: Gaussian, groups: Sequence[Moments]) -> float:
    """An estimate of the standard error of the whole set's Frechet distance: the standard deviation
    (ddof 1) of the groups' own distances, divided by the root of their number.

    Only the images vary; the reference is taken as fixed. Far from the noise floor a distance
    varies as an average over the images does, and the estimate is right, though it comes from few
    groups. Close to the floor the distance varies as 1 / n instead, and the estimate is too large,
    by a factor of up to root(groups). ValueError if there are fewer than two groups.
    """
    if len(groups) < 2:
        raise ValueError("an error needs at least two groups of images")
    distances = [frechet_distance(reference, group) for group in groups]
    return float(np.std(distances, ddof=1) / np.sqrt(len(groups)))


def distance_and_error(groups: GroupedMoments, reference: Gaussian) -> list[Estimate]:
    """The Frechet distance of all images; no error if a group has a single one."""
    enough = min(part.n for part in groups.parts) > 1
    error = group_error(reference, groups.parts) if enough else None
    return [(frechet_distance(reference, groups.whole), error)]


METRICS["fid"] = Metric(
    label="FID",
    help="Frechet distance (Heusel et al. 2017); error: standard error, from four groups of images",
    stream="pool",
    needs="gaussian",
    compute=distance_and_error,
    aliases=("frechet_inception_distance", "frechet distance", "fd"),
)
