"""First-order samplers: Euler, its ancestral form, and DDIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import ancestral_split, churn, euler_step

ETA = Option("how much noise an ancestral step adds; 0 is the ODE, 1 is DDPM's", 0, 1)
S_NOISE = Option("scale of the added noise", 0)
S_CHURN = Option("how much noise to add over the whole run; 0 is the ODE", 0)
S_TMIN = Option("add noise only at sigma of at least this", 0)
S_TMAX = Option("add noise only at sigma of at most this", 0)


@sampler(
    "euler",
    order=1,
    paper="Karras et al. 2022, algorithm 2 without its second-order correction",
    noise="white",
    ode={"S_churn": 0},
    aliases=("EulerDiscreteScheduler",),
)
def euler(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    S_churn: Annotated[float, S_CHURN] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    S_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = x_s + (t - s) (x_s - D(x_s; s)) / s."""
    for s, t in pairwise(sigmas):
        x, s = churn(x, s, len(sigmas) - 1, noise, S_churn, S_tmin, S_tmax, S_noise)
        d = yield x, s
        x = euler_step(x, d, s, t)
    return x


@sampler(
    "euler_ancestral",
    order=1,
    paper="Ho et al. 2020 (DDPM), algorithm 2, in the frame of Karras et al. 2022",
    noise="white",
    ode={"eta": 0},
    aliases=("Euler a", "EulerAncestralDiscreteScheduler"),
)
def euler_ancestral(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """An Euler step to sigma_down, then noise of sigma_up (see `ancestral_split`)."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        down, up = ancestral_split(s, t, eta)
        x = euler_step(x, d, s, down)
        if up:
            x = x + s_noise * up * noise(s, t)
    return x


@sampler(
    "ddim",
    order=1,
    paper="Song et al. 2021 (DDIM), eq. 12 and 16",
    noise="white",
    ode={"eta": 0, "variance": "eta"},
    aliases=("DDIMScheduler",),
    presets={"DDPM": {"eta": 1.0}, "DDPMScheduler": {"eta": 1.0}},
)
def ddim(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 0.0,
    variance: Annotated[
        Literal["eta", "sigma_hat"],
        Option("sigma_hat: eta = 1 with the paper's larger variance 1 - alpha_s / alpha_t"),
    ] = "eta",
) -> Coroutine:
    """x_t = D + sigma_down (x_s - D) / s + sigma_noise n. In the variance-exploding frame this is
    `euler_ancestral`; eta = 0 is `euler`, eta = 1 is DDPM.

    With `sigma_hat` the direction is that of eta = 1, and the noise, as sampled by DDPM, is
    sqrt(1 - a_s / a_t) in the variance-preserving frame with a = 1 / (1 + sigma^2), that is
    sqrt((s^2 - t^2) (1 + t^2) / (1 + s^2)) here; none is added in a step to sigma = 0.
    """
    for s, t in pairwise(sigmas):
        d = yield x, s
        down, up = ancestral_split(s, t, 1.0 if variance == "sigma_hat" else eta)
        if variance == "sigma_hat" and t > 0:
            up = math.sqrt((s - t) * (s + t) * (1 + t * t) / (1 + s * s))
        x = euler_step(x, d, s, down)
        if up:
            x = x + up * noise(s, t)
    return x
