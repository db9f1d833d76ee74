"""The exponential multistep family on the denoised D: DPM-Solver++ (2M, 3M, their SDE forms) and
UniPC.

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


def second_order(s: float, t: float, k: int, eta: float, solver_type: str) -> np.ndarray:
    """Exact moments; with `midpoint`, m_1 = m_0 / 2, as published."""
    m = exact_moments(s, t, k, eta)
    if k == 2 and solver_type == "midpoint":
        m[1] = m[0] / 2
    return m


def third_order(s: float, t: float, k: int, eta: float, as_published: bool) -> np.ndarray:
    """Exact moments; `as_published` halves m_2.

    DPM-Solver's code, and k-diffusion, diffusers and others after it, multiply the second divided
    difference by phi_3 where 2 phi_3 belongs. That makes it order 2.
    """
    m = exact_moments(s, t, k, eta)
    if k == 3 and as_published:
        m[2] = m[2] / 2
    return m


def multistep(
    x: Any,
    sigmas: Sequence[float],
    order: int,
    moments_of: Callable[[float, float, int, float], np.ndarray],
    *,
    lower_order_final: bool = False,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise: Noise | None = None,
) -> Coroutine:
    """The loop of DPM-Solver++: `order` predictions back, with `moments_of(s, t, k, eta)`."""
    history: History = []
    steps = zip(pairwise(sigmas), orders(sigmas, order, lower_order_final), strict=True)
    for (s, t), k in steps:
        d = yield x, s
        history = [(d, s), *history[: order - 1]]
        k = usable(nodes(history[:k], s, t))
        x = step(x, history, s, t, moments_of(s, t, k, eta), eta)
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
        "DPMSolverMultistepScheduler": {"lower_order_final": True},
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
    moments_of = partial(second_order, solver_type=solver_type)
    return multistep(x, sigmas, 2, moments_of, lower_order_final=lower_order_final)


@sampler(
    "dpmpp_2m_sde",
    order=2,
    strong=1,
    weak=2,
    paper="Lu et al. 2022 (DPM-Solver++), section 5: SDE-DPM-Solver++(2M)",
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM++ 2M SDE",),
    presets={"DPM++ 2M SDE Heun": {"solver_type": "heun"}},
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
    moments_of = partial(second_order, solver_type=solver_type)
    return multistep(x, sigmas, 2, moments_of, eta=eta, s_noise=s_noise, noise=noise)


@sampler(
    "dpmpp_3m",
    order=lambda o: 2 if o["as_published"] or o["lower_order_final"] else 3,
    paper="Lu et al. 2022 (DPM-Solver++), the multistep solver of order 3 of its code, corrected",
    aliases=("DPM++ 3M",),
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
    moments_of = partial(third_order, as_published=as_published)
    return multistep(x, sigmas, 3, moments_of, lower_order_final=lower_order_final)


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
    moments_of = partial(third_order, as_published=as_published)
    return multistep(x, sigmas, 3, moments_of, eta=eta, s_noise=s_noise, noise=noise)


def _unipc_moments(s: float, t: float, k: int, variant: str) -> np.ndarray:
    """Exact moments, but for two predictions: there the paper sets the one unknown coefficient to
    1/2 against B(h) = h (bh1) or 1 - e^-h (bh2), instead of solving for it."""
    m = exact_moments(s, t, k)
    if len(m) == 2:
        m[1] = (math.log(s / t) if variant == "bh1" else m[0]) / 2
    return m


@sampler(
    "unipc",
    order=lambda o: 2 if o["lower_order_final"] else o["order"] + 1,
    paper="Zhao et al. 2023 (UniPC), algorithms 1 and 2, on the data prediction",
    aliases=("uni_pc",),
    presets={
        "uni_pc_bh1": {"variant": "bh1"},
        "uni_pc_bh2": {"variant": "bh2"},
        "UniPCMultistepScheduler": {"lower_order_final": True},
    },
)
def unipc(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[Literal[1, 2, 3, 4], Option("order of the predictor")] = 2,
    variant: Annotated[Literal["bh1", "bh2"], Option("B(h) = h, or 1 - e^-h")] = "bh2",
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """UniP-p predicts x_t from the last p predictions; the evaluation there is then also used to
    correct it (UniC-p, order p + 1), at no further cost. `order` p gives order p + 1."""
    history: History = []
    x_last, s_last, k_last = x, sigmas[0], 0
    steps = zip(pairwise(sigmas), orders(sigmas, order, lower_order_final), strict=True)
    for (s, t), k in steps:
        d = yield x, s
        if k_last:  # UniC: x came from x_last; take that step again, now with D at its end too
            m = _unipc_moments(s_last, s, k_last + 1, variant)
            x = step(x_last, [*history[:k_last], (d, s)], s_last, s, m)
        history = [(d, s), *history[: order - 1]]
        k = usable(nodes(history[:k], s, t))
        x_last, s_last, k_last = x, s, k
        x = step(x, history, s, t, _unipc_moments(s, t, k, variant))  # UniP
    return x
