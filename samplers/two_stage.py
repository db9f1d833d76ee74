"""Second-order samplers with two evaluations a step: Heun and the DPM-Solver-2 family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.euler import ETA, S_CHURN, S_NOISE, S_TMAX, S_TMIN
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import ancestral_split, churn, eps, euler_step

Step = Callable[..., Coroutine]


def denoises_last(step: Step) -> Step:
    """A second evaluation cannot be asked for at sigma = 0: a step there is Euler's, and Euler from
    any sigma to zero gives the denoised itself."""

    @wraps(step)
    def wrapped(x: Any, s: float, t: float, *args: Any) -> Coroutine:
        return (yield x, s) if t == 0 else (yield from step(x, s, t, *args))

    return wrapped


@denoises_last
def heun_step(x: Any, s: float, t: float) -> Coroutine:
    """An Euler step, then the mean of the slopes at both of its ends: the trapezoidal rule."""
    d = yield x, s
    x_t = euler_step(x, d, s, t)
    d_t = yield x_t, t
    return x + (t - s) / 2 * (eps(x, d, s) + eps(x_t, d_t, t))


@denoises_last
def dpm_2_step(x: Any, s: float, t: float) -> Coroutine:
    """The slope at sqrt(s t), the middle in log sigma, for the whole step: the midpoint rule."""
    d = yield x, s
    mid = math.sqrt(s * t)
    x_mid = euler_step(x, d, s, mid)
    d_mid = yield x_mid, mid
    return x + (t - s) * eps(x_mid, d_mid, mid)


@denoises_last
def dpmpp_2s_step(x: Any, s: float, t: float) -> Coroutine:
    """The denoised at sqrt(s t), the middle in log sigma, for the whole step."""
    d = yield x, s
    mid = math.sqrt(s * t)
    d_mid = yield euler_step(x, d, s, mid), mid
    return euler_step(x, d_mid, s, t)


@denoises_last
def dpmpp_sde_step(
    x: Any, s: float, t: float, r: float, eta: float, s_noise: float, noise: Noise
) -> Coroutine:
    """A noisy Euler step to s^(1 - r) t^r; the denoised there and at s, mixed, for the whole step.

    Both draw from one Brownian path, so the noise to the middle is part of the noise to t.
    """

    def noisy_step(d: Any, to: float) -> Any:
        down, up = ancestral_split(s, to, eta)
        x_to = euler_step(x, d, s, down)
        return x_to + s_noise * up * noise(s, to) if up else x_to

    d = yield x, s
    mid = s * (t / s) ** r
    d_mid = yield noisy_step(d, mid), mid
    return noisy_step((1 - 1 / (2 * r)) * d + 1 / (2 * r) * d_mid, t)


@sampler(
    "heun",
    order=2,
    calls=2,
    first_calls=2,
    paper="Karras et al. 2022 (EDM), algorithms 1 and 2",
    noise="white",
    ode={"S_churn": 0},
    aliases=("HeunDiscreteScheduler",),
)
def heun(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    S_churn: Annotated[float, S_CHURN] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    S_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """Noise is added (churn), then an Euler step is taken and corrected by the trapezoidal rule:
    x_t = x_s + (t - s) (e_s + e_t) / 2, e = (x - D) / sigma at both ends."""
    for s, t in pairwise(sigmas):
        x, s = churn(x, s, len(sigmas) - 1, noise, S_churn, S_tmin, S_tmax, S_noise)
        x = yield from heun_step(x, s, t)
    return x


@sampler(
    "dpm_2",
    order=2,
    calls=2,
    first_calls=2,
    paper="Lu et al. 2022 (DPM-Solver), algorithm 1, with the churn of Karras et al. 2022",
    noise="white",
    ode={"S_churn": 0},
    aliases=("DPM2", "KDPM2DiscreteScheduler"),
)
def dpm_2(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    S_churn: Annotated[float, S_CHURN] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    S_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """Noise is added (churn), then the slope in the middle, m = sqrt(s t), is taken for the whole
    step: x_t = x_s + (t - s) e_m, e = (x - D) / sigma, x_m by Euler."""
    for s, t in pairwise(sigmas):
        x, s = churn(x, s, len(sigmas) - 1, noise, S_churn, S_tmin, S_tmax, S_noise)
        x = yield from dpm_2_step(x, s, t)
    return x


@sampler(
    "dpm_2_ancestral",
    order=2,
    calls=2,
    first_calls=2,
    paper="Lu et al. 2022 (DPM-Solver), algorithm 1, to sigma_down, then noise",
    noise="white",
    ode={"eta": 0},
    aliases=("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
)
def dpm_2_ancestral(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """`dpm_2` from s to sigma_down, then noise: x_t = x_s + (sigma_down - s) e_m + sigma_up n,
    m = sqrt(s sigma_down)."""
    for s, t in pairwise(sigmas):
        down, up = ancestral_split(s, t, eta)
        x = yield from dpm_2_step(x, s, down)
        if up:
            x = x + s_noise * up * noise(s, t)
    return x


@sampler(
    "dpmpp_2s_ancestral",
    order=2,
    calls=2,
    first_calls=2,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1, to sigma_down, then noise",
    noise="white",
    ode={"eta": 0},
    aliases=("DPM++ 2S a", "DPM++ 2S Ancestral"),
    presets={"DPM++ 2S": {"eta": 0.0}, "DPMSolverSinglestepScheduler": {"eta": 0.0}},
)
def dpmpp_2s_ancestral(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """The denoised in the middle, m = sqrt(s sigma_down), for the whole step to sigma_down, then
    noise: x_t = (sigma_down / s) x_s + (1 - sigma_down / s) D_m + sigma_up n."""
    for s, t in pairwise(sigmas):
        down, up = ancestral_split(s, t, eta)
        x = yield from dpmpp_2s_step(x, s, down)
        if up:
            x = x + s_noise * up * noise(s, t)
    return x


@sampler(
    "dpmpp_sde",
    order=2,
    calls=2,
    first_calls=2,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1, on the SDE, as in k-diffusion",
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ SDE", "DPMSolverSDEScheduler"),
)
def dpmpp_sde(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    r: Annotated[float, Option("where in the step, in log sigma, the middle is", 0.05, 1)] = 0.5,
) -> Coroutine:
    """A noisy step to m = s^(1 - r) t^r gives D_m; then one with it to t:
    x_t = (sigma_down / s) x_s + (1 - sigma_down / s) ((1 - 1 / (2 r)) D_s + D_m / (2 r))
    + sigma_up n."""
    for s, t in pairwise(sigmas):
        x = yield from dpmpp_sde_step(x, s, t, r, eta, s_noise, noise)
    return x
