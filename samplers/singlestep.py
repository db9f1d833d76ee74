"""DPM-Solver with single steps: blocks of up to three intervals of the grid, each one step of that
order whose inner stages are at the grid's own levels, so that every interval takes one evaluation.

`dpm_fast` integrates the noise prediction (DPM-Solver), `dpmpp_singlestep` D (DPM-Solver++).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.coefficients import CLOSEST, LOWER, coefficients
from kdiff.samplers.exponential_rk import C2, C3, SOLVER_TYPE, three_stages, two_stages
from kdiff.samplers.exponential_stages import (
    NOISE_PREDICTION,
    Method,
    Moments,
    Row,
    data_prediction,
    exponential_rk,
    staged,
)
from kdiff.samplers.loops import ETA, S_NOISE, ancestral_split
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import level

EULER = Method([], lambda m: [[m(1.0)[0]]])


def sizes(steps: int, order: int, to_zero: bool, lower_order_final: bool) -> list[int]:
    """How many intervals each block has: `order`, but for the last ones.

    These are 2 or 2, 2 where `order` is 3 and does not divide the steps, which does not lower the
    order of the whole; or with `lower_order_final` (Lu et al. 2022, section 3.4) 1 or 2, and 2, 1
    where it does. The interval to zero is a block of its own.
    """
    if to_zero and not lower_order_final:
        return [*(sizes(steps - 1, order, False, False) if steps > 1 else []), 1]
    rest = steps % order
    last = [rest] if rest else []
    if lower_order_final and not rest:
        last = [order - 1, 1] if order > 1 else [1]
    elif not lower_order_final and (order, rest) == (3, 1) and steps > 1:
        last = [2, 2]
    every = [order] * ((steps - sum(last)) // order) + last
    return [*every[:-1], every[-1] - 1, 1] if to_zero and every[-1] > 1 else every


def published_three(c2: float, c3: float, solver_type: str) -> Method:
    """The step of order 3 of DPM-Solver's code, which is of that order only with c3 = 2/3, as where
    steps are even in log sigma: the line (phi_1), or the parabola (phi_2), through the stages."""

    def rows(m: Moments) -> list[Row]:
        exact = solver_type == "phi_2"
        a32 = (m(c3)[1] if exact else m(c3)[0] * c3 / 2) / c2
        m0, m1, _ = m(1.0)
        parabola = coefficients([0.0, c2, c3], m(1.0))
        return [
            [m(c2)[0]],
            [m(c3)[0] - a32, a32],
            parabola if exact else [m0 - m1 / c3, 0.0, m1 / c3],
        ]

    return Method([c2, c3], rows)


def method_of(levels: Sequence[float], solver_type: str, as_published: bool) -> Method | None:
    """The step over a block; None if its levels are too close to tell a slope by, or lie where no
    method of order 3 has stages."""
    s, t = levels[0], levels[-1]
    if len(levels) == 2:
        return EULER
    c = [math.log(s / sigma) / math.log(s / t) for sigma in levels[1:-1]]
    if any(b - a < CLOSEST for a, b in pairwise([0.0, *c, 1.0])):
        return None
    if len(c) == 1:
        return two_stages(c[0], solver_type)
    if as_published:
        return published_three(c[0], c[1], solver_type)
    try:
        return three_stages(c[0], c[1])
    except ValueError:
        return None


def blocks(
    sigmas: Sequence[float], order: int, lower: bool, solver_type: str, as_published: bool
) -> Iterator[tuple[int, Sequence[float], Method]]:
    """Each block: its first interval, its levels, its method. Unusable ones fall into Euler's."""
    i = 0
    for size in sizes(len(sigmas) - 1, order, sigmas[-1] == 0, lower):
        levels = sigmas[i : i + size + 1]
        method = method_of(levels, solver_type, as_published)
        if method is None:
            yield from ((i + j, levels[j : j + 2], EULER) for j in range(size))
        else:
            yield i, levels, method
        i += size


@sampler(
    "dpm_solver_3",
    order=3,
    calls=3,
    first_calls=3,
    paper="Lu et al. 2022 (DPM-Solver), algorithms 2 and 5",
)
def dpm_solver_3(
    x: Any,
    sigmas: Sequence[float],
    *,
    r1: Annotated[float, C2] = 1 / 3,
    r2: Annotated[float, C3] = 2 / 3,
) -> Coroutine:
    """`res_3s` on the noise prediction: x_t = x_s + (t - s) e_s + (M_1 / r2) (e_3 - e_s) with
    M_1 = integral (lambda - lambda_s) / h dsigma, for r2 = 2/3, where gamma is 0."""
    return exponential_rk(x, sigmas, three_stages(r1, r2), NOISE_PREDICTION)


def order_of_blocks(options: Any) -> int:
    return min(options["order"], 2) if options["lower_order_final"] else options["order"]


@sampler(
    "dpm_fast",
    order=2,
    paper="Lu et al. 2022 (DPM-Solver), section 3.4 (DPM-Solver-fast), as in k-diffusion",
    noise="white",
    ode={"eta": 0},
    aliases=("DPM fast",),
)
def dpm_fast(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 0.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """Steps of order 3, and at the end of order 2 and 1, on the noise prediction, with stages at
    the grid's levels. With eta, to sigma_down, at least the last level above 0; then noise."""
    lowest = sigmas[-1] or sigmas[-2]
    for i, levels, method in blocks(sigmas, 3, True, "phi_1", False):
        s, t = levels[0], levels[-1]
        if t == 0:
            return (yield x, s)
        down, up = ancestral_split(s, t, eta)
        if up:
            down = max(down, lowest)
            up = math.sqrt((t - down) * (t + down))
            levels = [s, *(level("log_sigma", s, down, c) for c in method.c), down]
        rows = method.rows(partial(NOISE_PREDICTION.moments, s, down))
        x = yield from staged(x, levels, rows, NOISE_PREDICTION, range(i, i + len(rows)))
        if up:
            x = x + s_noise * up * noise(s, t)
    return x


@sampler(
    "dpmpp_singlestep",
    order=order_of_blocks,
    paper="Lu et al. 2022 (DPM-Solver++), algorithm 1 and the single steps of order 3 of its code",
    strong=1,
    weak=2,
    noise="brownian",
    ode={"eta": 0},
    presets={"DPM++ 1S": {"order": 2, "lower_order_final": True}},
)
def dpmpp_singlestep(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    order: Annotated[int, Option("how many intervals of the grid a step takes", 1, 3)] = 3,
    eta: Annotated[float, ETA] = 0.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    solver_type: Annotated[Literal["phi_1", "phi_2"], SOLVER_TYPE] = "phi_1",
    lower_order_final: Annotated[bool, LOWER] = False,
    as_published: Annotated[
        bool, Option("the published step of order 3, made for even steps in log sigma")
    ] = False,
) -> Coroutine:
    """Steps of `order` on D with stages at the grid's levels: one evaluation for each interval.
    Order 3 is `res_3s`, whose gamma is what the levels ask for. On the SDE (1 + eta) h stands for
    h, and sigma sqrt(1 - e^(-2 eta h)) n is added to each stage."""
    prediction = data_prediction(eta)
    for i, levels, method in blocks(sigmas, order, lower_order_final, solver_type, as_published):
        s, t = levels[0], levels[-1]
        if t == 0:
            return (yield x, s)

        def added(end: float, s: float = s) -> Any:
            up = end * math.sqrt(1 - (end / s) ** (2 * eta))
            return s_noise * up * noise(s, end) if eta else None

        rows = method.rows(partial(prediction.moments, s, t))
        x = yield from staged(x, levels, rows, prediction, range(i, i + len(rows)), added)
    return x
