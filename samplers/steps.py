"""The few moves that the samplers are made of. All noise levels are floats."""

from __future__ import annotations

import math
from typing import Any

from kdiff.samplers.registry import Noise


def euler_step(x: Any, d: Any, s: float, t: float) -> Any:
    """From s to t along the straight line through x and its denoised d:
    x_t = x + (t - s) (x - d) / s. The same as a DDIM step, and as a first-order DPM-Solver one."""
    return (t / s) * x + (1 - t / s) * d


def eps(x: Any, d: Any, s: float) -> Any:
    """The noise prediction (x - d) / s, which is dx/dsigma of the probability-flow ODE."""
    return (1 / s) * x - (1 / s) * d


def ancestral_split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step from s down to sigma_down, then add noise of sigma_up to be at
    t again: sigma_up^2 = eta^2 t^2 (s^2 - t^2) / s^2, sigma_down^2 = t^2 - sigma_up^2.

    eta = 1 is the posterior variance of DDPM (Ho et al. 2020, eq. 7); Song et al. 2021 (DDIM),
    eq. 16, with x_t / alpha_t for x_t.
    """
    up = eta * t * math.sqrt((s - t) * (s + t)) / s
    return math.sqrt(max(0.0, (t - up) * (t + up))), up


def churn(
    x: Any,
    s: float,
    steps: int,
    noise: Noise,
    S_churn: float,
    S_tmin: float,
    S_tmax: float,
    S_noise: float,
) -> tuple[Any, float]:
    """Raise the noise level from s to s_hat = (1 + gamma) s before a step, by fresh noise:
    Karras et al. 2022, algorithm 2, lines 5 and 6. -> (x_hat, s_hat)."""
    gamma = min(S_churn / steps, math.sqrt(2) - 1) if S_tmin <= s <= S_tmax else 0.0
    if gamma == 0:
        return x, s
    s_hat = s + gamma * s
    return x + S_noise * math.sqrt(s_hat**2 - s**2) * noise(s, s_hat), s_hat
