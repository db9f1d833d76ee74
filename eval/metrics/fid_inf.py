"""FID-infinity: where the Frechet distance goes as the number of images grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from operator import add
from typing import NamedTuple

import numpy as np

from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.metrics.frechet import Gaussian, expected_distance, frechet_distance
from kdiff.eval.statistics.grouped_moments import GROUPS, GroupedMoments
from kdiff.eval.statistics.moments import Moments


class Extrapolated(NamedTuple):
    """The distance at infinitely many images and its standard error."""

    value: float
    error: float


def extrapolate(reference: Gaussian, groups: Sequence[Moments]) -> Extrapolated:
    """FID-infinity (Chong & Forsyth 2020): the intercept of the line through the Frechet distances
    at various n, here of every union of 1, 2, .. groups (15 distances for 4 groups), by least
    squares through their averages at each number of groups.

    The paper's abscissa is 1 / n; here it is `expected_distance(reference, n)`. The two are
    proportional where n is far above the dimension. Where it is not, distances fall faster than
    1 / n: for 10,000 draws from the Gaussian of CIFAR-10's Inception features the intercept over
    1 / n is -0.26, and this one 0.00 (two trials).

    The error is the jackknife's over groups: the spread of the results that each leave one group
    out. A regression error would be too small, because the points share their images. The
    jackknife's error is right far from the noise floor, and up to about 1.8 times too large close
    to it. The bias from the reference's own number of images stays. The value can be negative
    when it is close to 0. ValueError if there are fewer than three groups.
    """
    if len(groups) < 3:
        raise ValueError("an extrapolation needs at least three groups of images")
    everyone = frozenset(range(len(groups)))
    points = _unions(reference, groups)
    without = [_intercept(points, everyone - {g}) for g in everyone]
    error = np.sqrt(len(groups) - 1) * np.std(without)
    return Extrapolated(_intercept(points, everyone), float(error))


Points = Mapping[frozenset[int], tuple[float, float]]


def _unions(reference: Gaussian, groups: Sequence[Moments]) -> Points:
    """For each union: what as many perfect images would get, and its Frechet distance."""
    points = {}
    total = sum(group.n for group in groups)
    for m in range(1, len(groups) + 1):
        floor = expected_distance(reference, m * total // len(groups))
        for members in combinations(range(len(groups)), m):
            union = reduce(add, (groups[g] for g in members))
            points[frozenset(members)] = floor, frechet_distance(reference, union)
    return points


def _intercept(points: Points, members: frozenset[int]) -> float:
    by_size = defaultdict(list)
    for union, point in points.items():
        if union <= members:
            by_size[len(union)].append(point)
    x, y = np.array([np.mean(at, axis=0) for at in by_size.values()]).T
    slope = ((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum()
    return float(y.mean() - slope * x.mean())


def _extrapolated(groups: GroupedMoments, reference: Gaussian) -> list[Estimate]:
    return [extrapolate(reference, groups.parts)]


METRICS["fid-inf"] = Metric(
    label="FID_inf",
    help="FID extrapolated to infinitely many images (Chong & Forsyth 2020); error: jackknife",
    stream="pool",
    needs="gaussian",
    compute=_extrapolated,
    least=lambda reference: GROUPS * (len(reference.mean) + 1),  # each group has full rank
    aliases=("fid-infinity",),
)
