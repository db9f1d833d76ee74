"""Quantiles of the beta distribution, which NumPy does not have."""

from __future__ import annotations

import math

import numpy as np

_TERMS, _MOST_STEPS = 120, 60


def beta_quantiles(p: np.ndarray, a: float, b: float) -> np.ndarray:
    """The x at which I_x(a, b) = p, the regularized incomplete beta function, to rounding.
    ArithmeticError unless a and b are above 0 and at most 50."""
    if not (0 < a <= 50 and 0 < b <= 50):
        raise ArithmeticError("alpha and beta must be above 0 and at most 50")
    half = _cumulative(np.array(0.5), a, b).item()
    lower = _lower_half(np.minimum(p, half), a, b)
    upper = 1 - _lower_half(np.minimum(1 - p, 1 - half), b, a)
    return np.where(p <= half, lower, upper)


def _cumulative(x: np.ndarray, a: float, b: float) -> np.ndarray:
    """I_x(a, b) = x^a / (a B(a, b)) sum_k (1 - b)_k / k! a / (a + k) x^k, for x up to 1/2."""
    return x**a * _series(x, a, b) / _scale(a, b)


def _series(x: np.ndarray, a: float, b: float) -> np.ndarray:
    term, total = np.ones_like(x), np.ones_like(x)
    for k in range(1, _TERMS):
        term = term * x * (k - b) / k
        total = total + term * a / (a + k)
    return total


def _scale(a: float, b: float) -> float:
    return a * math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))


def _lower_half(p: np.ndarray, a: float, b: float) -> np.ndarray:
    """The quantiles of p up to I_(1/2), by Newton's method for v = x^a: I is convex or concave in
    v, and begins as v / scale, so that all steps from there have one sign."""
    v = np.minimum(p * _scale(a, b), 0.5**a)
    for _ in range(_MOST_STEPS):
        x = v ** (1 / a)
        change = (v * _series(x, a, b) - p * _scale(a, b)) / (1 - x) ** (b - 1)
        v = np.clip(v - change, 0, 0.5**a)
        if (np.abs(change) <= 4e-15 * v).all():
            break
    return v ** (1 / a)
