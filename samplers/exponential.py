"""The exponential multistep family on the denoised D: DPM-Solver++ (2M, 3M, any order, and their
SDE forms). UniPC and SA-Solver correct what it predicts: see `unipc`.

With lambda = -ln sigma, one step of the SDE that keeps the marginals is, exactly,

    x_t = (t / s) e^(-eta h) x_s
          + (1 + eta) integral_s^t e^((1 + eta) (lambda - lambda_t)) D dlambda
          + t sqrt(1 - e^(-2 eta h)) n,            h = lambda_t - lambda_s

(Lu et al. 2022, DPM-Solver++, sections 4 and 5, in the variance-exploding frame;
eta = 0 is the ODE).
The members differ in the polynomial that stands for D, and in which of its moments they take
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.coefficients import LOWER, coefficients, combine, moments, orders, usable
from kdiff.samplers.loops import ETA, S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler

History = list[tuple[Any, float]]  # (D, the sigma it was predicted at), newest first
Adjust = Callable[[np.ndarray], np.ndarray]  # of the moments, where a paper takes others
SOLVER_TYPE = Option("midpoint: as published; heun: the linear term integrated exactly")
AS_PUBLISHED = Option("half the third coefficient, as in the paper's code and its copies: order 2")


def exact_moments(s: float, t: float, k: int, eta: float = 0.0) -> np.ndarray:
    """The first k moments, over a step from s to t, of the weight of D above;
    m_0 = 1 - (t / s)^(1 + eta)."""
    if t == 0:  # the whole weight is at the end of an infinite step; only its mass makes sense
        return np.ones(1)
    h = (1 + eta) * math.log(s / t)
    return moments(lambda u: h * np.exp(h * (u - 1)), k)


def nodes(history: History, s: float, t: float) -> list[float]:
    """Where the predictions were made, in units of the step from s to t in log sigma."""
    return [math.log(s / q) / math.log(s / t) if t else 0.0 for _, q in history]


def step(x: Any, history: History, s: float, t: float, m: np.ndarray, eta: float = 0.0) -> Any:
    """The deterministic part of a step: polynomial through as many predictions as moments."""
    used = history[: len(m)]
    c = coefficients(nodes(used, s, t), m)
    return (t / s) ** (1 + eta) * x + combine(c, [d for d, _ in used])


def second_order(m: np.ndarray, solver_type: str) -> np.ndarray:
    """Exact moments; with `midpoint`, m_1 = m_0 / 2, as published."""
    if len(m) == 2 and solver_type == "midpoint":
        m[1] = m[0] / 2
    return m


def third_order(m: np.ndarray, as_published: bool) -> np.ndarray:
    """Exact moments; `as_published` halves m_2.

    DPM-Solver's code, and k-diffusion, diffusers and others after it, multiply the second divided
    difference by phi_3 where 2 phi_3 belongs. That makes it order 2.
    """
    if len(m) == 3 and as_published:
        m[2] = m[2] / 2
    return m


def multistep(
    x: Any,
    sigmas: Sequence[float],
    order: int,
    adjust: Adjust = lambda m: m,
    *,
    lower_order_final: bool = False,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise: Noise | None = None,
) -> Coroutine:
    """The loop of DPM-Solver++: `order` predictions back, with the exact moments, adjusted."""
    history: History = []
    steps = zip(pairwise(sigmas), orders(sigmas, order, lower_order_final), strict=True)
    for (s, t), k in steps:
        d = yield x, s
        history = [(d, s), *history[: order - 1]]
        k = usable(nodes(history[:k], s, t))
        x = step(x, history, s, t, adjust(exact_moments(s, t, k, eta)), eta)
        if noise and eta and t:
            x = x + s_noise * t * math.sqrt(1 - (t / s) ** (2 * eta)) * noise(s, t)
    return x


@sampler(
    "dpmpp_2m",
    order=2,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 2",
    aliases=("DPM++ 2M",),
    presets={
        "DPM++ 2M Heun": {"solver_type": "heun"},
        "res_multistep": {"solver_type": "heun"},
        "DPMSolverMultistepScheduler": {"lower_order_final": True},
        "EDMDPMSolverMultistepScheduler": {"lower_order_final": True},
        "DPM++ 2M EDM": {"lower_order_final": True},
    },
)
def dpmpp_2m(
    x: Any,
    sigmas: Sequence[float],
    *,
    solver_type: Annotated[Literal["midpoint", "heun"], SOLVER_TYPE] = "midpoint",
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """x_t = (t / s) x_s + (1 - t / s) (D_0 + (D_0 - D_1) / (2 r)), r = h_last / h."""
    adjust = partial(second_order, solver_type=solver_type)
    return multistep(x, sigmas, 2, adjust, lower_order_final=lower_order_final)


@sampler(
    "dpmpp_2m_sde",
    order=2,
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver++), section 5: SDE-DPM-Solver++(2M)",
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ 2M SDE", "CosineDPMSolverMultistepScheduler", "DPM++ Cosine"),
    presets={
        "DPM++ 2M SDE Heun": {"solver_type": "heun"},
        "res_multistep_ancestral": {"solver_type": "heun"},
    },
)
def dpmpp_2m_sde(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    solver_type: Annotated[Literal["midpoint", "heun"], SOLVER_TYPE] = "midpoint",
) -> Coroutine:
    """`dpmpp_2m` on the SDE: h becomes (1 + eta) h in the weight of D, and noise is added."""
    adjust = partial(second_order, solver_type=solver_type)
    return multistep(x, sigmas, 2, adjust, eta=eta, s_noise=s_noise, noise=noise)


@sampler(
    "dpmpp_3m",
    order=lambda o: 2 if o["as_published"] or o["lower_order_final"] else 3,
    paper="Lu et al. 2022 (DPM-Solver++), the multistep solver of order 3 of its code, corrected",
    aliases=("DPM++ 3M", "res_3m"),
)
def dpmpp_3m(
    x: Any,
    sigmas: Sequence[float],
    *,
    as_published: Annotated[bool, AS_PUBLISHED] = False,
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """The exact integral of the parabola through the last three D:
    x_t = (t / s) x_s + sum_i c_i D_i, sum_i c_i = 1 - t / s."""
    adjust = partial(third_order, as_published=as_published)
    return multistep(x, sigmas, 3, adjust, lower_order_final=lower_order_final)


@sampler(
    "dpmpp_3m_sde",
    order=lambda options: 2 if options["as_published"] else 3,
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver++), section 5, with the polynomial of `dpmpp_3m`",
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ 3M SDE",),
)
def dpmpp_3m_sde(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    as_published: Annotated[bool, AS_PUBLISHED] = False,
) -> Coroutine:
    """`dpmpp_3m` on the SDE: h becomes (1 + eta) h in the weight of D, and noise is added."""
    adjust = partial(third_order, as_published=as_published)
    return multistep(x, sigmas, 3, adjust, eta=eta, s_noise=s_noise, noise=noise)


@sampler(
    "dpmpp_km",
    order=lambda o: min(o["order"], 2) if o["lower_order_final"] else o["order"],
    paper="Lu et al. 2022 (DPM-Solver++), sections 4 and 5; Hochbruck & Ostermann 2011, eq. 2.4",
    strong=1,
    weak=2,
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ kM", "exponential_adams", "exponential_adams_x0", "xEABSampler"),
)
def dpmpp_km(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    order: Annotated[int, Option("how many predictions are combined", 1, 9)] = 4,
    eta: Annotated[float, ETA] = 0.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """Exponential Adams-Bashforth: the exact integral of the polynomial through the last k D,
    x_t = (t / s)^(1 + eta) x_s + sum_i c_i D_i, sum_i c_i = 1 - (t / s)^(1 + eta), then noise.
    k = 2 is `dpmpp_2m` with heun, k = 3 is `dpmpp_3m`, and `deis` is its form on eps."""
    return multistep(
        x,
        sigmas,
        order,
        lower_order_final=lower_order_final,
        eta=eta,
        s_noise=s_noise,
        noise=noise,
    )
