"""The probability-flow ODE of a mixture of two Gaussians in one dimension, solved exactly, and how
fast a sampler converges to that. In numpy: samplers run on whatever can be added."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

import kdiff
from kdiff.samplers import Coroutine, Walk

MEANS, STDS, WEIGHTS = np.array([0.21, -0.21]), np.array([0.26, 0.17]), np.array([0.6, 0.4])
STARTS = np.linspace(-11, -5, 31)
SIGMA_MAX, SIGMA_MIN = 20.0, 0.02

Solve = Callable[[np.ndarray, Sequence[float]], Coroutine]  # from x at the first level to the last


def denoise(x: np.ndarray, sigma: float) -> np.ndarray:
    """E[x0 | x] of the mixture."""
    variance = STDS**2 + sigma**2
    away = x[:, None] - MEANS
    weight = np.log(WEIGHTS) - 0.5 * np.log(variance) - 0.5 * away**2 / variance
    posterior = np.exp(weight - weight.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    return (posterior * (MEANS + STDS**2 / variance * away)).sum(1)


@functools.cache
def solution() -> np.ndarray:
    """Where STARTS at SIGMA_MAX come from at SIGMA_MIN: the flow keeps quantiles, in whichever tail
    is the smaller."""

    def tail(x: float, sigma: float, sign: int) -> float:
        return float(WEIGHTS @ ndtr(sign * (x - MEANS) / np.hypot(STDS, sigma)))

    def end(x: float) -> float:
        sign = 1 if tail(x, SIGMA_MAX, 1) < 0.5 else -1
        quantile = tail(x, SIGMA_MAX, sign)
        root = functools.partial(tail, sigma=SIGMA_MIN, sign=sign)
        return brentq(lambda y: root(y) - quantile, -50, 50, xtol=1e-15, rtol=1e-15)

    return np.array([end(x) for x in STARTS])


def grid(steps: int) -> list[float]:
    ends = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX}
    return [float(s) for s in kdiff.schedule("karras", steps, **ends, final="sigma_min")]


def error(solve: Solve, steps: int) -> float:
    """The mean distance to the solution after so many steps on a Karras grid."""
    walk = Walk(solve(STARTS, grid(steps)))
    while walk.ask:
        walk.answer(denoise(walk.ask.x, walk.ask.sigma))
    return float(np.abs(walk.result - solution()).mean())


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Minus the slope of log error over log steps; nan where it does not converge."""
    if not all(0 < e < math.inf for e in errors):
        return math.nan
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])
