"""The formulas that most samplers are made of."""

from __future__ import annotations

from typing import Any


def euler_step(x: Any, d: Any, s: float, t: float) -> Any:
    """From s to t along the straight line through x and its denoised d:
    x_t = x + (t - s) (x - d) / s. The same as a DDIM step, and as a first-order DPM-Solver one."""
    return (t / s) * x + (1 - t / s) * d


def eps(x: Any, d: Any, s: float) -> Any:
    """The noise prediction (x - d) / s, which is dx/dsigma of the probability-flow ODE."""
    return (1 / s) * x - (1 / s) * d


def level(variable: str, s: float, t: float, c: float) -> float:
    """The sigma at the part c of a step from s to t, measured in `variable`: sigma, log_sigma or
    inverse_sigma."""
    if c in (0, 1):
        return t if c else s
    if variable == "log_sigma":
        return s * (t / s) ** c
    if variable == "inverse_sigma":
        return s * (t / (t + c * (s - t)))
    return s + c * (t - s)
