"""Second-order samplers with two evaluations a step: Heun and the DPM-Solver-2 family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.loops import (
    ETA,
    S_CHURN,
    S_NOISE,
    S_TMAX,
    S_TMIN,
    ancestral,
    ancestral_split,
    churned,
    denoises_last,
)
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import eps, euler_step, level

two_stage = partial(sampler, order=2, calls=2, first_calls=2)


@denoises_last
def heun(x: Any, s: float, t: float) -> Coroutine:
    """The trapezoidal rule: an Euler step, then the mean of the slopes at both its ends,
    x_t = x_s + (t - s) (e_s + e_t) / 2, e = (x - D) / sigma."""
    d = yield x, s
    x_t = euler_step(x, d, s, t)
    d_t = yield x_t, t
    return x + (t - s) / 2 * (eps(x, d, s) + eps(x_t, d_t, t))


two_stage(
    "heun",
    paper="Karras et al. 2022 (EDM), algorithms 1 and 2",
    noise="white",
    ode={"S_churn": 0},
    aliases=("HeunDiscreteScheduler",),
    presets={
        "KarrasVeScheduler": {"S_churn": 80.0, "S_tmin": 0.05, "S_tmax": 50.0, "S_noise": 1.007}
    },
)(churned(heun))


@denoises_last
def dpm_2(x: Any, s: float, t: float) -> Coroutine:
    """The midpoint rule: the slope at m = sqrt(s t), the middle in log sigma, for the whole step,
    x_t = x_s + (t - s) e_m, e = (x - D) / sigma, x_m by Euler."""
    d = yield x, s
    m = math.sqrt(s * t)
    x_m = euler_step(x, d, s, m)
    d_m = yield x_m, m
    return x + (t - s) * eps(x_m, d_m, m)


@two_stage(
    "rk2",
    paper="Karras et al. 2022 (EDM), algorithm 3; Lu et al. 2022 (DPM-Solver), algorithm 4",
    noise="white",
    ode={"S_churn": 0},
    presets={"dpm_solver_2": {"alpha": 0.5, "variable": "log_sigma"}},
)
def rk2(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    alpha: Annotated[float, Option("where in the step the second slope is", 0.05, 1)] = 2 / 3,
    variable: Annotated[
        Literal["sigma", "log_sigma"], Option("the variable in which `alpha` is measured")
    ] = "sigma",
    S_churn: Annotated[float, S_CHURN] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    S_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """The second slope at m = s + alpha (t - s), or s^(1 - alpha) t^alpha, x_m by Euler:
    x_t = x_s + (t - s) ((1 - 1 / (2 alpha)) e_s + e_m / (2 alpha)), e = (x - D) / sigma.
    alpha = 1 is `heun`; 1/2 is the midpoint rule, with log_sigma `dpm_2`; 2/3 is Ralston's.
    """

    @denoises_last
    def step(x: Any, s: float, t: float) -> Coroutine:
        d = yield x, s
        m = level(variable, s, t, alpha)
        x_m = euler_step(x, d, s, m)
        d_m = yield x_m, m
        w = 1 / (2 * alpha)
        return x + (t - s) * ((1 - w) * eps(x, d, s) + w * eps(x_m, d_m, m))

    churn = {"S_churn": S_churn, "S_tmin": S_tmin, "S_tmax": S_tmax, "S_noise": S_noise}
    return churned(step)(x, sigmas, noise=noise, **churn)


two_stage(
    "dpm_2",
    paper="Lu et al. 2022 (DPM-Solver), algorithm 1, with the churn of Karras et al. 2022",
    noise="white",
    ode={"S_churn": 0},
    aliases=("DPM2", "KDPM2DiscreteScheduler"),
)(churned(dpm_2))

two_stage(
    "dpm_2_ancestral",
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver), algorithm 1, to sigma_down, then noise",
    noise="white",
    ode={"eta": 0},
    aliases=("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
)(ancestral(dpm_2))


@denoises_last
def dpmpp_2s(x: Any, s: float, t: float) -> Coroutine:
    """The denoised at m = sqrt(s t), the middle in log sigma, for the whole step,
    x_t = (t / s) x_s + (1 - t / s) D_m, x_m by Euler."""
    d = yield x, s
    m = math.sqrt(s * t)
    d_m = yield euler_step(x, d, s, m), m
    return euler_step(x, d_m, s, t)


two_stage(
    "dpmpp_2s_ancestral",
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1, to sigma_down, then noise",
    noise="white",
    ode={"eta": 0},
    aliases=("DPM++ 2S a", "DPM++ 2S Ancestral"),
    presets={"DPM++ 2S": {"eta": 0.0}, "DPMSolverSinglestepScheduler": {"eta": 0.0}},
)(ancestral(dpmpp_2s))


@denoises_last
def dpmpp_sde_step(
    x: Any, s: float, t: float, r: float, eta: float, s_noise: float, noise: Noise
) -> Coroutine:
    """A noisy Euler step to m, and one to t with the denoised of both ends mixed. Both draw from
    one Brownian path, so the noise to m is part of the noise to t."""

    def noisy_step(d: Any, to: float) -> Any:
        down, up = ancestral_split(s, to, eta)
        x_to = euler_step(x, d, s, down)
        return x_to + s_noise * up * noise(s, to) if up else x_to

    d = yield x, s
    m = s * (t / s) ** r
    d_m = yield noisy_step(d, m), m
    return noisy_step((1 - 1 / (2 * r)) * d + 1 / (2 * r) * d_m, t)


@two_stage(
    "dpmpp_sde",
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1, on the SDE, as in k-diffusion",
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ SDE", "DPMSolverSDEScheduler", "DPM SDE"),
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
