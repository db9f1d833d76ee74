"""The Adams family on the noise prediction eps = (x - D) / sigma = dx/dsigma: LMS, DEIS and
multistep DPM-Solver. All are x_t = x_s + sum_i c_i eps_i with sum_i c_i = t - s; they differ
in the variable in which eps is taken for a polynomial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.coefficients import LOWER, coefficients, combine, moments, orders, usable
from kdiff.samplers.exponential import (
    AS_PUBLISHED,
    SOLVER_TYPE,
    Adjust,
    second_order,
    third_order,
)
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import eps, euler_step
from kdiff.samplers.vp import vp_time

ORDER = Option("how many noise predictions are combined", 1, 9)


# A path from sigma = s to t as u goes from 0 to 1: (sigma(u), dsigma/du).
Path = Callable[[float, float, np.ndarray], tuple[np.ndarray, np.ndarray]]


def straight(s: float, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return s + (t - s) * u, (t - s) * np.ones_like(u)


def geometric(s: float, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps integrands smooth over many octaves; cannot end at zero."""
    sigma = s * (t / s) ** u
    return sigma, np.log(t / s) * sigma


def combination(
    variable: Callable[[Any], Any],
    path: Path,
    at: Sequence[float],
    t: float,
    adjust: Adjust = lambda m: m,
) -> list[float]:
    """The coefficients of eps at the sigmas `at` (newest first) for the step from at[0] to t, with
    eps a polynomial in variable(sigma), integrated over sigma along `path`."""
    s = at[0]

    def in_steps(sigma: Any) -> Any:
        return (variable(sigma) - variable(s)) / (variable(t) - variable(s))

    m = moments(lambda u: path(s, t, u)[1], len(at), lambda u: in_steps(path(s, t, u)[0]))
    return coefficients([in_steps(sigma) for sigma in at], adjust(m))


def spaced(variable: Callable[[Any], Any], at: Sequence[float], t: float) -> Sequence[float]:
    """Those of the sigmas `at`, newest first, that are far enough apart for the step from at[0] to
    t: see `usable`."""
    start, end = variable(at[0]), variable(t)
    return at[: usable([(variable(sigma) - start) / (end - start) for sigma in at])]


def identity(sigma: Any) -> Any:
    return sigma


# variable(sigma), and the path to integrate along
VARIABLES: dict[str, tuple[Callable[[Any], Any], Path]] = {
    "rho": (identity, straight),
    "log_rho": (np.log, geometric),
    "t": (vp_time, geometric),
}


@sampler(
    "lms",
    order=lambda options: options["order"],
    paper="Liu et al. 2022 (PNDM), in the frame of Karras et al. 2022; Adams-Bashforth",
    aliases=("LMSDiscreteScheduler", "LMSD", "zABSampler"),
)
def lms(x: Any, sigmas: Sequence[float], *, order: Annotated[int, ORDER] = 4) -> Coroutine:
    """Linear multistep: x_t = x_s + sum_i c_i eps_i, eps a polynomial in sigma, to zero too."""
    history: list[Any] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        d = yield x, s
        history = [eps(x, d, s), *history[: order - 1]]
        at = spaced(identity, sigmas[i::-1][: len(history)], t)
        x = x + combine(combination(*VARIABLES["rho"], at, t), history)
    return x


def adams(
    x: Any,
    sigmas: Sequence[float],
    order: int,
    coefficients_of: Callable[[Sequence[float], float], list[float]],
    variable: Callable[[Any], Any],
    lower_order_final: bool = False,
) -> Coroutine:
    """x_t = x_s + sum_i c_i eps_i, with c = coefficients_of(sigmas of the eps, t), of those that
    are far enough apart in `variable`; Euler's step to sigma = 0."""
    history: list[Any] = []
    for i, k in enumerate(orders(sigmas, order, lower_order_final)):
        s, t = sigmas[i], sigmas[i + 1]
        d = yield x, s
        history = [eps(x, d, s), *history[: order - 1]]
        if k == 1:
            x = euler_step(x, d, s, t)
        else:
            at = spaced(variable, [sigmas[i - j] for j in range(k)], t)
            x = x + combine(coefficients_of(at, t), history)
    return x


@sampler(
    "deis",
    order=lambda o: min(o["order"], 2) if o["lower_order_final"] else o["order"],
    paper="Zhang & Chen 2023 (DEIS), eq. 15 (tAB-DEIS)",
    aliases=("exponential_adams_eps", "zEABSampler"),
    presets={
        "DEISMultistepScheduler": {"order": 2, "lower_order_final": True},
        "DEIS-tAB3": {"order": 4, "variable": "t"},
    },
)
def deis(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, ORDER] = 3,
    variable: Annotated[
        Literal["log_rho", "t", "rho"],
        Option("polynomial in ln sigma, the VP time (the paper's tAB), or sigma (its rhoAB)"),
    ] = "log_rho",
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """x_t = x_s + sum_i c_i eps_i, eps a polynomial in `variable`; Euler's step to sigma = 0."""
    coefficients_of = partial(combination, *VARIABLES[variable])
    return adams(x, sigmas, order, coefficients_of, VARIABLES[variable][0], lower_order_final)


@sampler(
    "dpm_solver_multistep",
    order=lambda o: min(o["order"], 2 if o["as_published"] or o["lower_order_final"] else 3),
    paper="Lu et al. 2022 (DPM-Solver), multistep on eps, as in the appendix of DPM-Solver++",
    aliases=("DPM-Solver multistep",),
)
def dpm_solver_multistep(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[Literal[1, 2, 3], Option("how many noise predictions are combined")] = 2,
    solver_type: Annotated[Literal["midpoint", "heun"], SOLVER_TYPE] = "midpoint",
    as_published: Annotated[bool, AS_PUBLISHED] = False,
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """x_t = x_s + (t - s) (e_0 + (e_0 - e_1) / (2 r)), r = h_last / h in ln sigma: `deis` with
    m_1 = m_0 / 2. With solver_type=heun, and at order 3, it is `deis` itself."""

    def adjust(m: np.ndarray) -> np.ndarray:
        return third_order(second_order(m, solver_type), as_published)

    coefficients_of = partial(combination, *VARIABLES["log_rho"], adjust=adjust)
    return adams(x, sigmas, order, coefficients_of, np.log, lower_order_final)


def adams_bashforth(k: int) -> list[float]:
    """The fixed coefficients on an even grid, newest first, with sum 1: k = 2 is 3/2, -1/2."""
    return combination(identity, straight, [float(-j) for j in range(k)], 1.0)
