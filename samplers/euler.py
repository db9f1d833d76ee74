"""First-order samplers: Euler, its ancestral form, and DDIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.loops import ETA, ancestral, ancestral_split, churned
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import euler_step


def euler(x: Any, s: float, t: float) -> Coroutine:
    """x_t = x_s + (t - s) (x_s - D(x_s; s)) / s."""
    d = yield x, s
    return euler_step(x, d, s, t)


sampler(
    "euler",
    order=1,
    paper="Karras et al. 2022 (EDM), algorithm 2 without its second-order correction",
    noise="white",
    ode={"S_churn": 0},
    aliases=(
        *("EulerDiscreteScheduler", "EDMEulerScheduler", "Euler EDM"),
        "FlowMatchEulerDiscreteScheduler",
    ),
)(churned(euler))

sampler(
    "euler_ancestral",
    order=1,
    strong=1,
    weak=1,
    paper="Ho et al. 2020 (DDPM), algorithm 2, in the frame of Karras et al. 2022",
    noise="white",
    ode={"eta": 0},
    aliases=("Euler a", "EulerAncestralDiscreteScheduler"),
)(ancestral(euler))


@sampler(
    "ddim",
    order=1,
    strong=1,
    weak=1,
    paper="Song et al. 2021 (DDIM), eq. 12 and 16",
    noise="white",
    ode={"eta": 0, "variance": "eta"},
    aliases=("DDIMScheduler", "CogVideoXDDIMScheduler"),
    presets={
        "DDPM": {"eta": 1.0},
        "DDPMScheduler": {"eta": 1.0},
        "DDPMParallelScheduler": {"eta": 1.0},
    },
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
