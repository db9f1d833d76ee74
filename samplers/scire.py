"""SciRE-Solver: singlestep Taylor methods in sigma, with the paper's recursive difference
F' = (e_r - e_s) / (phi_1(m) r h) for the derivative of e = eps(x; sigma), h = t - s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.loops import denoises_last
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import eps

TERMS = Option("terms m of phi_1(m); with m = 1 the order is that in the name", 1, 20)
PAPER = "Li et al. 2023 (SciRE-Solver), algorithms 1 and 2"


def phi_1(m: int) -> float:
    """sum_(k = 1)^m (-1)^(k - 1) / k!: 1, 1/2, 2/3, .. to 1 - 1 / e."""
    return math.fsum((-1) ** (k - 1) / math.factorial(k) for k in range(1, m + 1))


def taylor(x: Any, h: float, e: Any, e_r: Any, slope: float) -> Any:
    """x + h (e + slope (e_r - e))."""
    return x + h * (1 - slope) * e + h * slope * e_r


@denoises_last
def scire2_step(x: Any, s: float, t: float, m: int, r: float) -> Coroutine:
    d = yield x, s
    e, h, s_r = eps(x, d, s), t - s, s + r * (t - s)
    x_r = x + r * h * e
    d_r = yield x_r, s_r
    return taylor(x, h, e, eps(x_r, d_r, s_r), 1 / (2 * r * phi_1(m)))


@denoises_last
def scire3_step(x: Any, s: float, t: float, m: int, r2_power: int) -> Coroutine:
    r1, r2, h = 1 / 3, 2 / 3, t - s
    s1, s2 = s + r1 * h, s + r2 * h
    d = yield x, s
    e = eps(x, d, s)
    x1 = x + r1 * h * e
    d1 = yield x1, s1
    x2 = taylor(x, r2 * h, e, eps(x1, d1, s1), r2 ** (r2_power - 1) / (2 * r1 * phi_1(m)))
    d2 = yield x2, s2
    return taylor(x, h, e, eps(x2, d2, s2), 1 / (2 * r2 * phi_1(m)))


@sampler(
    "scire2",
    order=lambda o: 2 if o["m"] == 1 else 1,
    calls=2,
    first_calls=2,
    paper=PAPER,
    aliases=("SciRE-Solver-2",),
)
def scire2(
    x: Any,
    sigmas: Sequence[float],
    *,
    m: Annotated[int, TERMS] = 3,
    r: Annotated[float, Option("where in the step the second evaluation is", 0.05, 1)] = 0.5,
) -> Coroutine:
    """x_t = x_s + h (e_s + (e_r - e_s) / (2 r phi_1(m))), e_r at s + r h by Euler's step. Only
    with phi_1(1) = 1 is F' a difference quotient: with the paper's phi_1(3) = 2/3 the order is 1.
    """
    for s, t in pairwise(sigmas):
        x = yield from scire2_step(x, s, t, m, r)
    return x


@sampler(
    "scire3",
    order=lambda o: 1 if o["m"] != 1 else 2 if o["as_published"] else 3,
    calls=3,
    first_calls=3,
    paper=PAPER,
    aliases=("SciRE-Solver-3",),
)
def scire3(
    x: Any,
    sigmas: Sequence[float],
    *,
    m: Annotated[int, TERMS] = 3,
    as_published: Annotated[bool, Option("r_2 for its square, as in the authors' code")] = False,
) -> Coroutine:
    """x_2 = x_s + r_2 h e_s + (r_2 h)^2 F_1' / 2 at s + r_2 h, x_t = x_s + h e_s + h^2 F_2' / 2,
    with F_i' from the evaluations at s + r_i h, r = 1/3, 2/3. Order 1 as the paper has it, as with
    `scire2`; m = 1 is Heun's method of order 3."""
    for s, t in pairwise(sigmas):
        x = yield from scire3_step(x, s, t, m, 1 if as_published else 2)
    return x
