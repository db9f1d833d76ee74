"""Explicit Runge-Kutta methods on the probability-flow ODE: one sampler for every tableau."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from kdiff.samplers.butcher import TABLEAUX
from kdiff.samplers.butcher_conditions import Butcher
from kdiff.samplers.butcher_files import tableau_of
from kdiff.samplers.contract import Ask
from kdiff.samplers.registry import Coroutine, Final, Option, sampler
from kdiff.samplers.steps import eps, level

NAMES = ", ".join(TABLEAUX)


class Variable(NamedTuple):
    """What the ODE is stepped in: u, of which `length(s, t)` is a step's, for z = x / scale(sigma),
    with dz/du = `slope(x, D, sigma)`."""

    length: Callable[[float, float], float]
    scale: Callable[[float], float]
    slope: Callable[[Any, Any, float], Any]


VARIABLES = {
    "sigma": Variable(lambda s, t: t - s, lambda sigma: 1.0, eps),
    "log_sigma": Variable(
        lambda s, t: math.log(s / t), lambda sigma: 1.0, lambda x, d, sigma: d - x
    ),
    "inverse_sigma": Variable(
        lambda s, t: (s - t) / s / t, lambda sigma: sigma, lambda x, d, sigma: d
    ),
    "flow_time": Variable(
        lambda s, t: (t - s) / (1 + s) / (1 + t),
        lambda sigma: 1 + sigma,
        lambda x, d, sigma: eps(x, d, sigma) - d,
    ),
}


def runge_kutta_step(
    x: Any, s: float, t: float, method: Butcher, variable: str, step: int
) -> Coroutine:
    """Asks for `method.stages` denoised images: a last stage that is for an embedded result only
    is left out, as it would be the first stage of the next step."""
    length, scale, slope = VARIABLES[variable]
    slopes: list[Any] = []

    def state(sigma: float, weights: Sequence[float]) -> Any:
        total = scale(sigma) / scale(s) * x
        for weight, k in zip(weights, slopes, strict=False):
            if weight:
                total = total + scale(sigma) * length(s, t) * weight * k
        return total

    for row, c in zip(method.a[: method.stages], method.c, strict=False):
        sigma = level(variable, s, t, c)
        y = state(sigma, row)
        d = yield Ask(y, sigma, step=step)
        slopes.append(slope(y, d, sigma))
    return state(t, method.b)


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

HEUN_OF_FLOWS = {"tableau": "heun2", "variable": "flow_time"}


@sampler(
    "runge_kutta",
    order=lambda options: tableau_of(options["tableau"]).order,
    nfe=evaluations,
    paper="Runge 1895, Heun 1900, Kutta 1901; Butcher 1964",
    aliases=("rk4",),
    presets={
        **{name: {"tableau": found} for name, found in PRESETS.items()},
        **dict.fromkeys(("FlowMatchHeunDiscreteScheduler", "Heun FlowMatch"), HEUN_OF_FLOWS),
    },
)
def runge_kutta(
    x: Any,
    sigmas: Sequence[float],
    *,
    tableau: Annotated[str, Option(f"its coefficients: {NAMES}, or a .json file")] = "rk4",
    variable: Annotated[
        Literal["sigma", "log_sigma", "inverse_sigma", "flow_time"],
        Option("the variable in which the ODE is stepped"),
    ] = "sigma",
) -> Coroutine:
    """k_i = f(z_s + h sum_j a_ij k_j), z_t = z_s + h sum_i b_i k_i, of one of the forms of the ODE
    dx/dsigma = e = (x - D) / sigma, dx/dlambda = D - x with lambda = -ln sigma,
    d(x / sigma)/d(1 / sigma) = D, and d(x / (1 + sigma))/dtau = e - D with the time of a rectified
    flow, tau = sigma / (1 + sigma). Euler's step to sigma = 0."""
    method = tableau_of(tableau)
    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = (yield x, s) if t == 0 else (yield from runge_kutta_step(x, s, t, method, variable, i))
    return x
