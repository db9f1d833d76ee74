"""The one solver behind every multistep method: integrate the polynomial through the last k
predictions, exactly, against a weight.

In units of the step, u = 0 is where it starts and u = 1 where it ends. The moments of a weight w
are m_j = integral_0^1 w(u) u^j du; the coefficients c of predictions made at `nodes` u_i solve
sum_i c_i u_i^j = m_j, so that sum_i c_i p(u_i) = integral w p for every polynomial p of degree
below k. In float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from kdiff.options import Option

LOWER = Option("take the last steps with lower order, as diffusers and DPM-Solver do")

# A float32 network rounds at about 1e-6 of its answer; two predictions a two-hundredth apart put
# 2e-4 into the slope over the step. The finest that schedules come to is a hundred-and-sixtieth:
# exponential, 1000 steps from 14.6 to 0.03, whose last step `lms` takes to 0.
CLOSEST = 5e-3

# 64 points: exact to rounding for polynomials times exp(u h) up to |h| of 30 and more.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_POINTS, _WEIGHTS = (_POINTS + 1) / 2, _WEIGHTS / 2


def moments(
    weight: Callable[[np.ndarray], np.ndarray],
    k: int,
    variable: Callable[[np.ndarray], np.ndarray] = lambda u: u,
) -> np.ndarray:
    """m_0 .. m_(k-1) of a smooth weight on [0, 1]; of the powers of `variable` if given."""
    return (_WEIGHTS * weight(_POINTS)) @ np.vander(variable(_POINTS), k, increasing=True)


def usable(nodes: Sequence[float]) -> int:
    """How many of the predictions at `nodes`, newest first, a step can use: those before the first
    two neighbours whose gap is less than CLOSEST of their distance to the step's end, u = 1. Their
    difference tells the slope up to there, and the network's rounding with it, multiplied by
    distance / gap."""
    pairs = enumerate(pairwise(nodes), 1)
    return next((i for i, (a, b) in pairs if abs(a - b) < CLOSEST * abs(1 - a)), len(nodes))


def coefficients(nodes: Sequence[float], moments: np.ndarray) -> list[float]:
    """The coefficient of each prediction, as `nodes` has them (distinct, as many as moments)."""
    vandermonde = np.vander(np.asarray(nodes, dtype=np.float64), len(nodes), increasing=True)
    return [float(c) for c in np.linalg.solve(vandermonde.T, moments)]


def orders(sigmas: Sequence[float], order: int, lower_order_final: bool = False) -> list[int]:
    """The order of each step: 1, 2, .. `order` while the history grows; 1, 2, .. again counted
    from the end if `lower_order_final`; and 1 for a step to sigma = 0, where log sigma ends."""
    steps = len(sigmas) - 1
    result = [min(order, i + 1) for i in range(steps)]
    if lower_order_final:
        result = [min(o, steps - i) for i, o in enumerate(result)]
    if sigmas[-1] == 0:
        result[-1] = 1
    return result


def combine(coefficients: Sequence[float], predictions: Sequence[object]):
    """sum_i c_i p_i over the predictions that have a coefficient."""
    total = coefficients[0] * predictions[0]  # type: ignore[operator]
    for c, p in zip(coefficients[1:], predictions[1:], strict=False):
        total = total + c * p  # type: ignore[operator]
    return total
