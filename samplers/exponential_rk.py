"""Exponential Runge-Kutta methods on D: refined exponential solvers, ETD and exponential Heun."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.coefficients import coefficients
from kdiff.samplers.exponential_stages import (
    Method,
    Moments,
    Row,
    data_prediction,
    exponential_rk,
    exponential_step,
)
from kdiff.samplers.loops import ETA, S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler

SOLVER_TYPE = Option("phi_2: the linear term integrated exactly; phi_1: with half of M_0")
C2 = Option("where in the step, in log sigma, the second stage is", 0.05, 1)
C3 = Option("where in the step, in log sigma, the third stage is", 0.05, 1)


def two_stages(c2: float, solver_type: str = "phi_2") -> Method:
    """The line through both stages; order 2."""

    def rows(m: Moments) -> list[Row]:
        m0, m1, _ = m(1.0)
        slope = (m1 if solver_type == "phi_2" else m0 / 2) / c2
        return [[m(c2)[0]], [m0 - slope, slope]]

    return Method([c2], rows)


def three_stages(c2: float, c3: float) -> Method:
    """Hochbruck & Ostermann 2005, section 5.2, with 2 (gamma c2 + c3) = 3 (gamma c2^2 + c3^2);
    order 3. With c3 = 2/3, gamma is 0. ValueError if there is no such method."""
    lacks, gives = 3 * c3**2 - 2 * c3, c2 * (2 - 3 * c2)
    gamma = 0.0 if abs(lacks) < 1e-12 else lacks / gives if abs(gives) > 1e-12 else math.nan
    total = gamma * c2 + c3
    if not (abs(total) > 0.1 and abs(gamma) < 10):
        raise ValueError(f"no stable method of order 3 has stages at {c2:g} and {c3:g}: change one")

    def rows(m: Moments) -> list[Row]:
        m0, m1, _ = m(1.0)
        a32 = (gamma * m(c2)[1] + m(c3)[1]) / c2
        b2, b3 = gamma * m1 / total, m1 / total
        return [[m(c2)[0]], [m(c3)[0] - a32, a32], [m0 - b2 - b3, b2, b3]]

    return Method([c2, c3], rows)


def _etdrk3(m: Moments) -> list[Row]:
    return [[m(0.5)[0]], [-m(1.0)[0], 2 * m(1.0)[0]], coefficients([0.0, 0.5, 1.0], m(1.0))]


def _etdrk4(m: Moments) -> list[Row]:
    half, full = m(0.5)[0], m(1.0)[0]
    first, middle, last = coefficients([0.0, 0.5, 1.0], m(1.0))
    third = [full - 2 * half, 0.0, 2 * half]
    return [[half], [0.0, half], third, [first, middle / 2, middle / 2, last]]


ETDRK3, ETDRK4 = Method([0.5, 1.0], _etdrk3), Method([0.5, 0.5, 1.0], _etdrk4)


@sampler(
    "res_2s",
    order=2,
    calls=2,
    first_calls=2,
    paper="Zhang et al. 2023 (refined exponential solver), section 4; Hochbruck & Ostermann 2005",
    presets={"exp_heun_2_x0": {"c2": 1.0}, "etdrk2": {"c2": 1.0}, "etdrk2_2s": {"c2": 1.0}},
)
def res_2s(
    x: Any,
    sigmas: Sequence[float],
    *,
    c2: Annotated[float, C2] = 0.5,
    solver_type: Annotated[Literal["phi_2", "phi_1"], SOLVER_TYPE] = "phi_2",
) -> Coroutine:
    """x_t = (t / s) x_s + (M_0 - M_1 / c2) D_s + (M_1 / c2) D_2, M_0 = 1 - t / s,
    M_1 = 1 - M_0 / h; x_2 by Euler. c2 = 1 is the exponential Heun method (ETD2RK); with phi_1 it
    is DPM-Solver++(2S)."""
    return exponential_rk(x, sigmas, two_stages(c2, solver_type), data_prediction())


@sampler(
    "res_3s",
    order=3,
    calls=3,
    first_calls=3,
    paper="Zhang et al. 2023 (refined exponential solver), section 4; Hochbruck & Ostermann 2005",
    presets={"dpmpp_3s": {"c2": 1 / 3, "c3": 2 / 3}},
)
def res_3s(
    x: Any,
    sigmas: Sequence[float],
    *,
    c2: Annotated[float, C2] = 0.5,
    c3: Annotated[float, C3] = 1.0,
) -> Coroutine:
    """x_t = (t / s) x_s + M_0 D_s + M_1 (gamma (D_2 - D_s) + D_3 - D_s) / (gamma c2 + c3),
    gamma = (3 c3^2 - 2 c3) / (2 c2 - 3 c2^2); x_3 with both D before it. c2 = 1/3, c3 = 2/3 is
    DPM-Solver++(3S)."""
    return exponential_rk(x, sigmas, three_stages(c2, c3), data_prediction())


@sampler(
    "etdrk3",
    order=3,
    calls=3,
    first_calls=3,
    paper="Cox & Matthews 2002, eq. 23 to 25 (ETD3RK)",
    aliases=("etdrk3_a_3s",),
)
def etdrk3(x: Any, sigmas: Sequence[float]) -> Coroutine:
    """The parabola through D at the start, the middle and the end, integrated exactly."""
    return exponential_rk(x, sigmas, ETDRK3, data_prediction())


@sampler(
    "etdrk4",
    order=4,
    calls=4,
    first_calls=4,
    paper="Cox & Matthews 2002, eq. 26 to 29 (ETD4RK)",
    aliases=("etdrk4_4s", "res_4s_cox_matthews"),
)
def etdrk4(x: Any, sigmas: Sequence[float]) -> Coroutine:
    """`etdrk3`'s parabola, with the mean of two stages in the middle: the exponential form of
    the classical Runge-Kutta method."""
    return exponential_rk(x, sigmas, ETDRK4, data_prediction())


@sampler(
    "exp_heun_2_x0_sde",
    order=2,
    calls=2,
    first_calls=2,
    paper="Gonzalez et al. 2023 (SEEDS), SEEDS-2 with c2 = 1, as in ComfyUI",
    strong=1,
    weak=2,
    noise="brownian",
    ode={"eta": 0},
)
def exp_heun_2_x0_sde(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    solver_type: Annotated[Literal["phi_2", "phi_1"], SOLVER_TYPE] = "phi_2",
) -> Coroutine:
    """The exponential Heun method on the SDE: (1 + eta) h for h, and t sqrt(1 - e^(-2 eta h)) n
    added in both stages."""
    method, prediction = two_stages(1.0, solver_type), data_prediction(eta)
    for i, (s, t) in enumerate(pairwise(sigmas)):
        if t == 0:
            return (yield x, s)

        @cache  # one noise for both stages, drawn once D_s is known
        def drawn(s: float = s, t: float = t) -> Any:
            up = s_noise * t * math.sqrt(1 - (t / s) ** (2 * eta))
            return up * noise(s, t) if eta else None

        def added(level: float, drawn: Callable[[], Any] = drawn) -> Any:
            return drawn()

        x = yield from exponential_step(x, s, t, method, prediction, i, added)
    return x
