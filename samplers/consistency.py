"""Samplers of few-step students: jump down to a lower noise level, then add fresh noise up to the
next one. What a student predicts, the end of the ODE from x, is here the denoised D; a student's
boundary scaling (c_skip, c_out) belongs to its preconditioner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.loops import S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import euler_step
from kdiff.samplers.vp import vp_sigma, vp_time

GAMMA = Option("share of the way up that is noise; 0 is the ODE, 1 adds noise to D", 0, 1)
# jump(x, d, s, low): from s to `low`, given the denoised d
Jump = Callable[[Any, Any, float, float], Any]


def jumps_and_noise(
    x: Any,
    sigmas: Sequence[float],
    noise: Noise,
    low_of: Callable[[float], float],
    jump: Jump = euler_step,
    s_noise: float = 1.0,
) -> Coroutine:
    """x_low = jump(x, D, s, low), low = low_of(t); x_t = x_low + sqrt(t^2 - low^2) n."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        low = min(low_of(t), t)
        x = jump(x, d, s, low)
        if low < t:
            x = x + s_noise * math.sqrt((t - low) * (t + low)) * noise(s, t)
    return x


def to_the_denoised(x: Any, d: Any, s: float, low: float) -> Any:
    return d


@sampler(
    "consistency",
    order=1,
    student=True,
    paper="Song et al. 2023 (consistency models), algorithm 1",
    noise="white",
    ode=None,
    aliases=("CMStochasticIterativeScheduler", "CMSI"),
    presets={
        "lcm": {"epsilon": 0.0},
        "LCMScheduler": {"epsilon": 0.0},
        "FlowMatchLCMScheduler": {"epsilon": 0.0},
    },
)
def consistency(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    epsilon: Annotated[float, Option("the noise level that the model's answers have", 0)] = 0.002,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = D(x_s; s) + sqrt(t^2 - epsilon^2) n, for models whose D is where the ODE ends. epsilon
    = 0 is LCM's form (Luo et al. 2023), and stochastic sampling of a rectified flow."""
    return jumps_and_noise(x, sigmas, noise, lambda t: epsilon, to_the_denoised, s_noise)


@sampler(
    "tcd",
    order=1,
    keeps_marginals=False,  # but of a student's data
    paper="Zheng et al. 2024 (TCD), algorithm 2: strategic stochastic sampling",
    noise="white",
    ode={"gamma": 0},
    aliases=("TCDScheduler",),
)
def tcd(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    gamma: Annotated[float, GAMMA] = 0.3,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """Along x and D to sigma((1 - gamma) t), in the time t of the VP SDE, then noise up to t:
    x_low = x_s + (low - s) (x_s - D) / s, x_t = x_low + sqrt(t^2 - low^2) n."""

    def low_of(t: float) -> float:
        return float(vp_sigma((1 - gamma) * vp_time(t))) if gamma and t else t

    return jumps_and_noise(x, sigmas, noise, low_of, s_noise=s_noise)


@sampler(
    "ctm",
    order=1,
    keeps_marginals=False,
    paper="Kim et al. 2024 (CTM), algorithm 2: gamma-sampling, with D alone",
    noise="white",
    ode={"gamma": 0},
)
def ctm(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    gamma: Annotated[float, GAMMA] = 0.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """As `tcd`, down to sqrt(1 - gamma^2) t. CTM's networks learn the jump G(x, s, low); with the
    denoised D alone the jump is Euler's, and this is DDIM with noise of gamma t."""
    low = math.sqrt((1 - gamma) * (1 + gamma))
    return jumps_and_noise(x, sigmas, noise, lambda t: low * t, s_noise=s_noise)
