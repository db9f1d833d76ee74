"""The two formulas that most samplers are made of."""

from __future__ import annotations

from typing import Any


def euler_step(x: Any, d: Any, s: float, t: float) -> Any:
    """From s to t along the straight line through x and its denoised d:
    x_t = x + (t - s) (x - d) / s. The same as a DDIM step, and as a first-order DPM-Solver one."""
    return (t / s) * x + (1 - t / s) * d


def eps(x: Any, d: Any, s: float) -> Any:
    """The noise prediction (x - d) / s, which is dx/dsigma of the probability-flow ODE."""
    return (1 / s) * x - (1 / s) * d
