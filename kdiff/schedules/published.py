"""Schedules that were found by search, for certain models, and published as numbers.

All are interpolated linearly in the logarithm to any number of points, and stretched in ln sigma to
the model's range; within the published range, which is the default one of such a model, they are as
published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kdiff.betas import alphas_cumprod, sigmas_of
from kdiff.schedules.registry import registered

LAST_IS_ZERO = "last is zero"
AYS_SD15 = "999 850 736 645 545 455 343 233 124 24 0"  # timesteps of Stable Diffusion's betas
AYS_SDXL = "999 845 730 587 443 310 193 116 53 13 0"
AYS_SVD = "700 54.5 15.886 7.977 4.248 1.789 .981 .403 .173 .034 .002"
# Of 2 to 20 steps on Stable Diffusion 1.5, all between the same two ends.
GITS_ENDS = 14.61464119, 0.02916753
GITS = """
.803307
1.56271636 .52423614
2.36326075 .92192322 .36617002
2.84484982 1.24153244 .59516323 .25053367
5.85520077 2.05039096 .95350921 .45573691 .17026083
5.85520077 2.45070267 1.24153244 .64427125 .29807833 .09824532
5.85520077 2.45070267 1.36964464 .803307 .45573691 .25053367 .09824532
5.85520077 2.84484982 1.61558151 .95350921 .59516323 .36617002 .19894916 .09824532
5.85520077 2.84484982 1.67050016 1.08895338 .74807048 .50118381 .32104823 .19894916 .09824532
5.85520077 2.95596409 1.84880662 1.24153244 .83188516 .59516323 .41087446 .27464288 .17026083 \
.09824532
5.85520077 3.07277966 1.98035145 1.36964464 .95350921 .69515091 .50118381 .36617002 .25053367 \
.17026083 .09824532
6.77309084 3.46139455 2.36326075 1.56271636 1.08895338 .803307 .59516323 .45573691 .34370604 \
.25053367 .17026083 .09824532
6.77309084 3.46139455 2.45070267 1.61558151 1.162866 .86115354 .64427125 .50118381 .38853383 \
.29807833 .22545385 .17026083 .09824532
7.49001646 4.65472794 3.07277966 2.12350607 1.51179266 1.08895338 .83188516 .64427125 .50118381 \
.38853383 .29807833 .22545385 .17026083 .09824532
7.49001646 4.65472794 3.07277966 2.12350607 1.51179266 1.08895338 .83188516 .64427125 .50118381 \
.41087446 .32104823 .25053367 .19894916 .13792117 .09824532
7.49001646 4.65472794 3.07277966 2.12350607 1.51179266 1.08895338 .83188516 .64427125 .50118381 \
.41087446 .34370604 .27464288 .22545385 .17026083 .13792117 .09824532
7.49001646 4.65472794 3.07277966 2.19988537 1.61558151 1.20157266 .92192322 .72133851 .57119018 \
.45573691 .36617002 .29807833 .25053367 .19894916 .17026083 .13792117 .09824532
7.49001646 4.65472794 3.07277966 2.19988537 1.61558151 1.24153244 .95350921 .74807048 .59516323 \
.4783645 .38853383 .32104823 .27464288 .22545385 .19894916 .17026083 .13792117 .09824532
7.49001646 4.65472794 3.07277966 2.19988537 1.61558151 1.24153244 .95350921 .74807048 .59516323 \
.50118381 .41087446 .34370604 .29807833 .25053367 .22545385 .19894916 .17026083 .13792117 .09824532
"""
# Times of flows.
OSS_FLUX = ".9968 .9886 .9819 .975 .966 .9471 .9158 .8287 .5512 .2808 .001"
OSS_WAN = """
1 .997 .995 .993 .991 .989 .987 .985 .98 .975 .973 .968 .96 .946 .927 .902 .864 .776 .539 .208 .001
"""
OSS_CHROMA = """
.992 .99 .988 .985 .982 .978 .973 .968 .961 .953 .943 .931 .917 .9 .881 .858 .832 .802 .769 .731 .69
.646 .599 .55 .501 .451 .402 .355 .311 .27 .232 .199 .169 .143 .12 .101 .084 .07 .058 .048 .001
"""


def numbers(text: str) -> list[float]:
    """`.9 .5` -> [0.9, 0.5]."""
    return [float(word) for word in text.split()]


def interpolated(points: Sequence[float], n: int) -> np.ndarray:
    """`n` of the points, evenly by their index, with those between by the logarithm."""
    at = np.linspace(0, len(points) - 1, n)
    return np.exp(np.interp(at, np.arange(len(points)), np.log(points)))


def stretched(sigmas: np.ndarray, ends: tuple[float, float], low: float, high: float) -> np.ndarray:
    """The same between `high` and `low` instead of `ends`, in ln sigma."""
    first, last = math.log(ends[0]), math.log(ends[1])
    share = (np.log(sigmas) - last) / (first - last)
    return np.exp(math.log(low) + share * math.log(high / low))


def _fitted(points: Sequence[float], n: int, low: float, high: float) -> np.ndarray:
    return stretched(interpolated(points, n), (points[0], points[-1]), low, high)


def _of_stable_diffusion(timesteps: str) -> list[float]:
    table = sigmas_of(alphas_cumprod("scaled_linear"))
    return [table[int(t)] for t in timesteps.split()]


@registered(ends=LAST_IS_ZERO, aliases=("Align Your Steps",))
def ays(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Align Your Steps for Stable Diffusion 1.5, of 10 steps (Sabour et al. 2024)."""
    return _fitted(_of_stable_diffusion(AYS_SD15), n, sigma_min, sigma_max)


@registered(ends=LAST_IS_ZERO)
def ays_sdxl(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Align Your Steps for Stable Diffusion XL, of 10 steps (Sabour et al. 2024)."""
    return _fitted(_of_stable_diffusion(AYS_SDXL), n, sigma_min, sigma_max)


@registered(ends=LAST_IS_ZERO)
def ays_svd(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Align Your Steps for Stable Video Diffusion, of 10 steps from 700 to 0.002 (Sabour et al.
    2024)."""
    return _fitted(numbers(AYS_SVD), n, sigma_min, sigma_max)


@registered(ends=LAST_IS_ZERO)
def gits(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """GITS for Stable Diffusion 1.5, a schedule of its own for each of 2 to 20 steps, with the
    coefficient 1.2 (Chen et al. 2024, On the Trajectory Regularity of ODE-based Diffusion
    Sampling)."""
    rows = GITS.split("\n")[1:-1]
    row = rows[min(max(n - 3, 0), len(rows) - 1)] if n > 2 else ""
    return _fitted([GITS_ENDS[0], *numbers(row), GITS_ENDS[1]], n, sigma_min, sigma_max)


def _of_flow(times: str, n: int, low: float, high: float) -> np.ndarray:
    """Times of a flow are interpolated as times."""

    def sigmas(t: np.ndarray) -> np.ndarray:
        t = np.minimum(t, 1 - 1e-6)
        return t / (1 - t)

    points = numbers(times)
    first, last = sigmas(np.array([points[0], points[-1]])).tolist()
    return stretched(sigmas(interpolated(points, n)), (first, last), low, high)


@registered(ends=LAST_IS_ZERO)
def oss(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Optimal Stepsize for Flux, of 10 steps, from sigma = 311.5 to 0.001 (Pei et al. 2025)."""
    return _of_flow(OSS_FLUX, n, sigma_min, sigma_max)


@registered(ends=LAST_IS_ZERO)
def oss_wan(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Optimal Stepsize for Wan, of 20 steps, from sigma = infinity (1e6) to 0.001 (Pei et al.
    2025)."""
    return _of_flow(OSS_WAN, n, sigma_min, sigma_max)


@registered(ends=LAST_IS_ZERO)
def oss_chroma(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Optimal Stepsize for Chroma, of 40 steps, from sigma = 124 to 0.001 (found as those of Pei et
    al. 2025)."""
    return _of_flow(OSS_CHROMA, n, sigma_min, sigma_max)
