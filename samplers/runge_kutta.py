"""Explicit Runge-Kutta methods on the probability-flow ODE: one sampler for every tableau."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.butcher import TABLEAUX
from kdiff.samplers.butcher_conditions import Butcher
from kdiff.samplers.butcher_files import tableau_of
from kdiff.samplers.contract import Ask
from kdiff.samplers.registry import Coroutine, Final, Option, sampler
from kdiff.samplers.steps import eps

NAMES = ", ".join(TABLEAUX)


# The variable of the steps: dx/dsigma = eps, or dx/dlambda = D - x with lambda = -ln sigma.


def level(variable: str, s: float, t: float, c: float) -> float:
    """The sigma at the part c of a step from s to t."""
    if c in (0, 1):
        return t if c else s
    return s * (t / s) ** c if variable == "log_sigma" else s + c * (t - s)


def slope(variable: str, x: Any, d: Any, sigma: float) -> Any:
    return d - x if variable == "log_sigma" else eps(x, d, sigma)


def length(variable: str, s: float, t: float) -> float:
    return math.log(s / t) if variable == "log_sigma" else t - s


def along(x: Any, h: float, weights: Sequence[float], slopes: Sequence[Any]) -> Any:
    """x + h sum_i w_i k_i."""
    for weight, k in zip(weights, slopes, strict=False):
        if weight:
            x = x + h * weight * k
    return x


def runge_kutta_step(
    x: Any, s: float, t: float, method: Butcher, variable: str, step: int
) -> Coroutine:
    """Asks for `method.stages` denoised images: a last stage that is for an embedded result only
    is left out, as it would be the first stage of the next step."""
    h, slopes = length(variable, s, t), list[Any]()
    for row, c in zip(method.a[: method.stages], method.c, strict=False):
        y, sigma = along(x, h, row, slopes), level(variable, s, t, c)
        d = yield Ask(y, sigma, step=step)
        slopes.append(slope(variable, y, d, sigma))
    return along(x, h, method.b, slopes)


def evaluations(steps: int, final: Final, options: Mapping[str, Any]) -> int:
    stages = tableau_of(options["tableau"]).stages
    return stages * steps - (stages - 1 if final == "zero" else 0)


PRESETS = {
    "midpoint_2s": "midpoint",
    "ralston": "ralston2",
    "ralston_2s": "ralston2",
    "heun_2s": "heun2",
    "kutta_3s": "kutta3",
    "heun_3s": "heun3",
    "ralston_3s": "ralston3",
    "houwen-wray_3s": "wray3",
    "ssprk3_3s": "ssprk3",
    "bogacki_shampine": "bogacki_shampine3",
    "bogacki-shampine_4s": "bogacki_shampine3",
    "rk4_4s": "rk4",
    "rk38_4s": "three_eighths",
    "ralston_4s": "ralston4",
    "dormand_prince": "dormand_prince5",
    "dormand-prince_6s": "dormand_prince5",
    "rk6_7s": "butcher6",
}


@sampler(
    "runge_kutta",
    order=lambda options: tableau_of(options["tableau"]).order,
    nfe=evaluations,
    paper="Runge 1895, Heun 1900, Kutta 1901; Butcher 1964",
    aliases=("rk4",),
    presets={name: {"tableau": found} for name, found in PRESETS.items()},
)
def runge_kutta(
    x: Any,
    sigmas: Sequence[float],
    *,
    tableau: Annotated[str, Option(f"its coefficients: {NAMES}, or a .json file")] = "rk4",
    variable: Annotated[
        Literal["sigma", "log_sigma"], Option("the variable in which the ODE is stepped")
    ] = "sigma",
) -> Coroutine:
    """k_i = f(x_s + h sum_j a_ij k_j), x_t = x_s + h sum_i b_i k_i; f is dx/dsigma = (x - D) /
    sigma and h = t - s, or f is dx/dlambda = D - x and h = ln(s / t). Euler's step to sigma = 0.
    """
    method = tableau_of(tableau)
    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = (yield x, s) if t == 0 else (yield from runge_kutta_step(x, s, t, method, variable, i))
    return x
