"""Embedded Runge-Kutta pairs on the probability-flow ODE, with control of the error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from kdiff.samplers.adaptive_steps import (
    MOST,
    Limit,
    Slope,
    integrate,
    rms,
    to_the_end,
    vanishing,
)
from kdiff.samplers.butcher import named
from kdiff.samplers.coefficients import combine
from kdiff.samplers.dpm_adaptive import Tolerance
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.step_size import Elementary
from kdiff.samplers.steps import eps

Numbers = Sequence[float]


@dataclass(frozen=True)
class Pair:
    """`a`, `b`, `c` of an explicit tableau; the weights of its error's `estimates`, one or two, and
    their order. The last stage of a pair that is first-same-as-last is where the step ends."""

    a: Sequence[Numbers]
    b: Numbers
    c: Numbers
    estimates: Sequence[Numbers]
    order: int

    @property
    def ends_in_a_stage(self) -> bool:
        return tuple(self.a[-1]) == tuple(self.b[:-1]) and not self.b[-1]


@cache
def pair_of(name: str) -> Pair:
    """ValueError if dop853 is asked for without scipy, which has its table."""
    if name == "dop853":
        return _dop853()
    tableau = named(name)
    assert tableau is not None and tableau.b_embedded is not None
    difference = [x - y for x, y in zip(tableau.b, tableau.b_embedded, strict=True)]
    order = min(tableau.order, tableau.order_embedded or 1)
    return Pair(tableau.a, tableau.b, tableau.c, [difference], order)


def _dop853() -> Pair:
    try:
        from scipy.integrate import DOP853
    except ImportError as error:
        raise ValueError("the table of dop853 is scipy's: pip install scipy") from error
    rows = [row[:i].tolist() for i, row in enumerate(DOP853.A)]
    b = DOP853.B.tolist()
    estimates = [DOP853.E5.tolist(), DOP853.E3.tolist()]
    return Pair([*rows, b], [*b, 0.0], [*DOP853.C.tolist(), 1.0], estimates, 7)


def in_sigma(x: Any, d: Any, s: float) -> Any:
    """dx/dsigma"""
    return eps(x, d, s)


def in_log_sigma(x: Any, d: Any, s: float) -> Any:
    """dx/dln(sigma) = x - D"""
    return x - d


# u(sigma), sigma(u), dx/du
Function = Callable[[float], float]
Variable = tuple[Function, Function, Callable[[Any, Any, float], Any]]
VARIABLES: dict[str, Variable] = {
    "sigma": (float, float, in_sigma),
    "log_sigma": (math.log, math.exp, in_log_sigma),
}


def estimated(h: float, ks: Sequence[Any], estimates: Sequence[Numbers], scale: Any) -> float:
    """rms(h sum e_i k_i / scale); with a second estimate of lower order, their combination of
    Hairer, Norsett & Wanner 1993, II.10 (DOP853): E5^2 / sqrt(E5^2 + E3^2 / 100)."""
    errors = [abs(h) * rms(combine(e, ks) / scale) for e in estimates]
    if len(errors) == 1 or errors[0] == 0:
        return errors[0]
    return errors[0] ** 2 / math.hypot(errors[0], 0.1 * errors[1])


def first_step(
    x: Any, k: Any, slope: Slope, u: float, end: float, scale: Any, order: int
) -> Coroutine:
    """The first h to try, from a small Euler step: Hairer, Norsett & Wanner 1993, II.4.
    VanishingStep if the tolerances are too small for any."""
    d_0, d_1 = rms(x / scale), rms(k / scale)
    if not (math.isfinite(d_0) and math.isfinite(d_1)):  # no scale, or one that is far too small
        raise vanishing(u)
    h = min(1e-6 if min(d_0, d_1) < 1e-5 else 0.01 * d_0 / d_1, abs(end - u))
    step = math.copysign(h, end - u)
    k_1 = yield from slope(x + step * k, u + step)
    d_2 = rms((k_1 - k) / scale) / h
    most = max(d_1, d_2)
    h_1 = max(1e-6, 1e-3 * h) if most <= 1e-15 else (0.01 / most) ** (1 / (order + 1))
    return math.copysign(min(100 * h, h_1, abs(end - u)), end - u)


@sampler(
    "rk_adaptive",
    order=lambda options: pair_of(options["pair"]).order + 1,
    paper="Song et al. 2021 (score SDE), section 4.3: black-box solvers of the ODE",
    nfe=None,
    limit=MOST,
    linear=False,
    aliases=("RK45",),
    presets={"RK23": {"pair": "bogacki_shampine"}, "DOP853": {"pair": "dop853"}},
)
def rk_adaptive(
    x: Any,
    sigmas: Sequence[float],
    *,
    pair: Annotated[
        Literal["dormand_prince", "bogacki_shampine", "cash_karp", "fehlberg", "heun2", "dop853"],
        Option("the Runge-Kutta pair"),
    ] = "dormand_prince",
    variable: Annotated[
        Literal["sigma", "log_sigma"], Option("what the steps are taken in")
    ] = "sigma",
    rtol: Tolerance = 1e-5,
    atol: Tolerance = 1e-5,
    limit: Limit = MOST,
) -> Coroutine:
    """x_(u + h) = x_u + h sum b_i k_i, k_i = dx/du at the pair's stages, u = sigma or ln sigma, in
    steps with rms(h sum e_i k_i / (atol + rtol max(|x_u|, |x_(u + h)|))) < 1, for each sample its
    own: scipy's solve_ivp with RK45, RK23 or DOP853 on that sample alone."""
    table = pair_of(pair)
    u_of, sigma_of, derivative = VARIABLES[variable]

    def solve(x: Any, i: int, first: float, last: float) -> Coroutine:
        def slope(x: Any, u: float) -> Coroutine:
            sigma = exact.get(u) or sigma_of(u)
            d = yield x, sigma
            return derivative(x, d, sigma)

        def trial(x: Any, u: float, v: float, k: Any) -> Coroutine:
            h, ks = v - u, [k]
            for a, c in zip(table.a[1:], table.c[1:], strict=True):
                at = v if c == 1 else u + c * h
                ks.append((yield from slope(x + h * combine(a, ks), at)))
            x_v = x + h * combine(table.b, ks)
            scale = atol + rtol * x.abs().maximum(x_v.abs())
            error = estimated(h, ks, table.estimates, scale)
            return x_v, error, ks[-1] if table.ends_in_a_stage else None

        start, end = u_of(first), u_of(last)
        exact = {start: first, end: last}
        k = yield from slope(x, start)
        scale = atol + rtol * x.abs()
        h = yield from first_step(x, k, slope, start, end, scale, table.order)
        control = Elementary(h, table.order)
        return (yield from integrate(x, start, end, control, slope, trial, k))

    return to_the_end(sigmas, solve, x)
