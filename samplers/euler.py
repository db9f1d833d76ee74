"""First-order samplers: Euler, its ancestral form, and DDIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.contract import Ask, Variance
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
        Literal["eta", "sigma_hat", "learned"],
        Option(
            "eta = 1 with the larger variance 1 - alpha_s / alpha_t (sigma_hat), or with what the "
            "network has learned (learned)"
        ),
    ] = "eta",
) -> Coroutine:
    """x_t = D + sigma_down (x_s - D) / s + sigma_noise n. In the variance-exploding frame this is
    `euler_ancestral`; eta = 0 is `euler`, eta = 1 is DDPM.

    With `sigma_hat` the direction is that of eta = 1, and the noise, as sampled by DDPM, is
    sqrt(1 - a_s / a_t) in the variance-preserving frame with a = 1 / (1 + sigma^2), that is
    sqrt((s^2 - t^2) (1 + t^2) / (1 + s^2)) here; none is added in a step to sigma = 0.

    With `learned` the network's v chooses between these two, in every component by itself:
    sigma_noise = small^(1 - f) large^f, f = (1 + v) / 2 (Nichol & Dhariwal 2021, iDDPM, eq. 15).
    ValueError if the network has no learned variance.
    """
    for s, t in pairwise(sigmas):
        learned = Variance() if variance == "learned" and t > 0 else None
        d = yield Ask(x, s, variance=learned)
        down, up = ancestral_split(s, t, eta if variance == "eta" else 1.0)
        x = euler_step(x, d, s, down)
        if up:
            x = x + spread(up, s, t, variance, learned) * noise(s, t)
    return x


def spread(small: float, s: float, t: float, variance: str, learned: Variance | None) -> Any:
    """sigma_noise of `ddim`, in the place of `small`."""
    if variance == "eta":
        return small
    large = math.sqrt((s - t) * (s + t) * (1 + t * t) / (1 + s * s))
    return large if learned is None else small * (large / small) ** ((1 + learned.v) / 2)
