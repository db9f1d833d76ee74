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
    """The sigma at the part c of a step from s to t, measured in `variable`: sigma, log_sigma,
    inverse_sigma, or the time of a flow, sigma / (1 + sigma)."""
    if c in (0, 1):
        return t if c else s
    if variable == "log_sigma":
        return s * (t / s) ** c
    if variable == "inverse_sigma":
        return s * (t / (t + c * (s - t)))
    if variable == "flow_time":
        return s + c * (t - s) * (1 + s) / (1 + s + (1 - c) * (t - s))
    return s + c * (t - s)
