"""The two ways in which single-step samplers add noise: before each step, or after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.contract import Walk
from kdiff.samplers.registry import Coroutine, Noise, Option

# step(x, s, t): from noise level s to t; a coroutine, as it asks for D.
Step = Callable[[Any, float, float], Coroutine]

ETA = Option("how much noise an ancestral step adds; 0 is the ODE, 1 is DDPM's", 0, 1)
S_NOISE = Option("scale of the added noise", 0)
S_CHURN = Option("how much noise to add over the whole run; 0 is the ODE", 0)
S_TMIN = Option("add noise only at sigma of at least this", 0)
S_TMAX = Option("add noise only at sigma of at most this", 0)


def churned(step: Step) -> Callable[..., Coroutine]:
    """The sampler that raises the noise level from s to s_hat = (1 + gamma) s by fresh noise before
    each step: Karras et al. 2022, algorithm 2, lines 4 to 6."""

    def loop(
        x: Any,
        sigmas: Sequence[float],
        *,
        noise: Noise,
        S_churn: Annotated[float, S_CHURN] = 0.0,
        S_tmin: Annotated[float, S_TMIN] = 0.0,
        S_tmax: Annotated[float, S_TMAX] = math.inf,
        S_noise: Annotated[float, S_NOISE] = 1.0,
    ) -> Coroutine:
        for s, t in pairwise(sigmas):
            gamma = min(S_churn / (len(sigmas) - 1), math.sqrt(2) - 1)
            if gamma and S_tmin <= s <= S_tmax:
                s_hat = s + gamma * s
                x = x + S_noise * math.sqrt(s_hat**2 - s**2) * noise(s, s_hat)
                s = s_hat
            x = yield from step(x, s, t)
        return x

    about = "Before each step, churn raises s to s_hat = (1 + gamma) s with fresh noise."
    loop.__doc__ = f"{step.__doc__} {about}"
    return loop


def ancestral_split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step from s down to sigma_down, then add noise of sigma_up to be at
    t again: sigma_up^2 = eta^2 t^2 (s^2 - t^2) / s^2, and sigma_down^2 = t^2 - sigma_up^2
    = t^2 (1 - eta^2 + (eta t / s)^2), which cancels nothing, so that it is 0 only if t is.

    eta = 1 is the posterior variance of DDPM (Ho et al. 2020, eq. 7); Song et al. 2021 (DDIM),
    eq. 16, with x_t / alpha_t for x_t.
    """
    if eta == 0:
        return t, 0.0  # also upwards, from s to a larger t
    up = eta * t * math.sqrt((s - t) * (s + t)) / s
    down_squared = (1 - eta) * (1 + eta) + (eta * t / s) ** 2  # in units of t
    return t * math.sqrt(max(0.0, down_squared)), up


def flow_split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up) with the time of a rectified flow, tau = sigma / (1 + sigma), down to
    tau_down = tau_t (1 - eta (1 - tau_t / tau_s)), and sigma_up^2 = t^2 - sigma_down^2. It adds
    less noise in long steps than `ancestral_split`; both have the same limit in short ones."""
    ratio = t * (1 + s) / (s * (1 + t))  # tau_t / tau_s
    lower = eta * (s - t) / (s * (1 + t))  # eta (1 - ratio)
    down = t * ((1 - eta) + eta * ratio) / (1 + t * lower)
    gap = t * lower * (1 + t) / (1 + t * lower)  # t - down, without its cancellation
    return down, math.sqrt(max(0.0, gap * (t + down)))


def ancestral(
    step: Step, split: Callable[[float, float, float], tuple[float, float]] = ancestral_split
) -> Callable[..., Coroutine]:
    """The sampler that steps from s to sigma_down and then adds noise of sigma_up."""

    def loop(
        x: Any,
        sigmas: Sequence[float],
        *,
        noise: Noise,
        eta: Annotated[float, ETA] = 1.0,
        s_noise: Annotated[float, S_NOISE] = 1.0,
    ) -> Coroutine:
        for s, t in pairwise(sigmas):
            down, up = split(s, t, eta)
            x = yield from step(x, s, down)
            if up:
                x = x + s_noise * up * noise(s, t)
        return x

    about = "This from s to t = sigma_down; then noise: x_t = x_down + sigma_up n."
    loop.__doc__ = f"{step.__doc__} {about}"
    return loop


def denoises_last(step: Callable[..., Coroutine]) -> Callable[..., Coroutine]:
    """For steps of several evaluations: none can be asked for at sigma = 0, so a step there is
    Euler's, and Euler from any sigma to zero gives the denoised itself."""

    @wraps(step)
    def wrapped(x: Any, s: float, t: float, *args: Any) -> Coroutine:
        return (yield x, s) if t == 0 else (yield from step(x, s, t, *args))

    return wrapped


def at_step(i: int, step: Coroutine) -> Coroutine:
    """The same, whose asks belong to interval `i` of the grid."""
    walk = Walk(step, graph=True)
    while walk.ask is not None:
        walk.answer((yield walk.ask._replace(step=i)))
    return walk.result
