"""DPM-Solver-12 and -23: steps of two orders from the same evaluations tell their error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from kdiff.samplers.adaptive_steps import MOST, Limit, integrate, rms, to_the_end
from kdiff.samplers.loops import ETA, S_NOISE, ancestral_split
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.step_size import PIDStepSizeController
from kdiff.samplers.steps import eps

Tolerance = Annotated[float, Option("error of a step that is tolerated", 0)]
Coefficient = Annotated[float, Option("weight in the exponent of the step's factor")]


def eps_at(x: Any, s: float) -> Coroutine:
    d = yield x, s
    return eps(x, d, s)


def bend(s: float, t: float) -> float:
    """sigma_t (e^h - 1 - h) / h: what a slope in lambda of eps, times h, adds over the step."""
    return (s - t) / math.log(s / t) - t


def both_orders(x: Any, s: float, t: float, e: Any, order: int) -> Coroutine:
    """(lower, higher): steps of orders `order` - 1 and `order` from s to t, `e` the eps at s.

    Order 2: x_t = x + (t - s) (e + (e_1 - e) / (2 r_1)), e_1 at the part r_1 = 1 / 2 of the step in
    lambda, and Euler's. Order 3: x_t = x + (t - s) e - b(s, t) (e_2 - e) / r_2, e_2 at r_2 = 2 / 3
    from e_1 at r_1 = 1 / 3, b as in `bend`; and the second-order one from e_1.
    """
    r_1, r_2 = (1 / 2 if order == 2 else 1 / 3), 2 / 3
    euler, s_1 = x + (t - s) * e, s * (t / s) ** r_1
    x_1 = x + (s_1 - s) * e
    difference = (yield from eps_at(x_1, s_1)) - e
    second = euler + (t - s) / (2 * r_1) * difference
    if order == 2:
        return euler, second
    s_2 = s * (t / s) ** r_2
    x_2 = x + (s_2 - s) * e - bend(s, s_2) * r_2 / r_1 * difference
    e_2 = yield from eps_at(x_2, s_2)
    return second, euler - bend(s, t) / r_2 * (e_2 - e)


@sampler(
    "dpm_adaptive",
    order=lambda options: options["order"],
    paper="Lu et al. 2022 (DPM-Solver), appendix C.3, with k-diffusion's PID control of the step",
    nfe=None,
    limit=MOST,
    linear=False,
    noise="brownian",
    ode={"eta": 0},
    aliases=("DPM adaptive", "DPM ad"),
)
def dpm_adaptive(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    order: Annotated[Literal[2, 3], Option("of the steps taken; the lower tells the error")] = 3,
    rtol: Tolerance = 0.05,
    atol: Tolerance = 0.0078,
    h_init: Annotated[float, Option("the first step tried, in log sigma", 1e-9)] = 0.05,
    pcoeff: Coefficient = 0.0,
    icoeff: Coefficient = 1.0,
    dcoeff: Coefficient = 0.0,
    accept_safety: Annotated[float, Option("least factor of steps accepted", 0)] = 0.81,
    eta: Annotated[float, ETA] = 0.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    limit: Limit = MOST,
) -> Coroutine:
    """Steps in lambda = -ln sigma, each x_t of `order`, with the error
    rms((x_low - x_t) / max(atol, rtol |x_low|, rtol |x_low before|)) <= 1; then noise, if eta > 0.
    For each sample its own steps; k-diffusion takes the error over the batch."""

    def solve(x: Any, i: int, first: float, last: float) -> Coroutine:
        def level(u: float) -> float:
            return exact.get(u) or math.exp(-u)

        def slope(state: Any, u: float) -> Coroutine:
            return eps_at(state[0], level(u))

        def trial(state: Any, u: float, v: float, e: Any) -> Coroutine:
            x, low_before = state
            s, t = level(u), level(v)
            down, up = down_and_up(s, t, eta, last)
            low, high = yield from both_orders(x, s, down, e, order)
            tolerance = (rtol * low.abs().maximum(low_before.abs())).clamp(min=atol)
            error = rms((low - high) / tolerance)
            if up:
                high = high + s_noise * up * noise(s, t)[i : i + 1]
            return (high, low), error, None

        start, end = -math.log(first), -math.log(last)
        exact = {start: first, end: last}
        h = math.copysign(h_init, end - start)
        pid = PIDStepSizeController(h, pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
        return (yield from integrate((x, x), start, end, pid, slope, trial))[0]

    return to_the_end(sigmas, solve, x)


def down_and_up(s: float, t: float, eta: float, last: float) -> tuple[float, float]:
    """As `ancestral_split`, but not down below the `last` noise level."""
    down, up = ancestral_split(s, t, eta)
    if 0 < down < last and up:
        return last, math.sqrt((t - last) * (t + last))
    return down, up
