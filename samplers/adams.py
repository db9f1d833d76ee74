"""The Adams family on the noise prediction eps = (x - D) / sigma = dx/dsigma: LMS, DEIS, iPNDM and
PLMS. All are x_t = x_s + sum_i c_i eps_i with sum_i c_i = t - s; they differ in the variable in
which eps is taken for a polynomial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.coefficients import LOWER, coefficients, combine, moments, orders, usable
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import eps, euler_step
from kdiff.samplers.vp import vp_time

ORDER = Option("how many noise predictions are combined")


# A path from sigma = s to t as u goes from 0 to 1: (sigma(u), dsigma/du).
Path = Callable[[float, float, np.ndarray], tuple[np.ndarray, np.ndarray]]


def straight(s: float, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return s + (t - s) * u, (t - s) * np.ones_like(u)


def geometric(s: float, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps integrands smooth over many octaves; cannot end at zero."""
    sigma = s * (t / s) ** u
    return sigma, np.log(t / s) * sigma


def combination(
    variable: Callable[[Any], Any], path: Path, at: Sequence[float], t: float
) -> list[float]:
    """The coefficients of eps at the sigmas `at` (newest first) for the step from at[0] to t, with
    eps a polynomial in variable(sigma), integrated over sigma along `path`."""
    s = at[0]

    def in_steps(sigma: Any) -> Any:
        return (variable(sigma) - variable(s)) / (variable(t) - variable(s))

    m = moments(lambda u: path(s, t, u)[1], len(at), lambda u: in_steps(path(s, t, u)[0]))
    return coefficients([in_steps(sigma) for sigma in at], m)


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
    aliases=("LMSDiscreteScheduler",),
)
def lms(
    x: Any, sigmas: Sequence[float], *, order: Annotated[Literal[1, 2, 3, 4], ORDER] = 4
) -> Coroutine:
    """Linear multistep: x_t = x_s + sum_i c_i eps_i, eps a polynomial in sigma, to zero too."""
    history: list[Any] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        d = yield x, s
        history = [eps(x, d, s), *history[: order - 1]]
        at = spaced(identity, sigmas[i::-1][: len(history)], t)
        x = x + combine(combination(*VARIABLES["rho"], at, t), history)
    return x


@sampler(
    "deis",
    order=lambda o: min(o["order"], 2) if o["lower_order_final"] else o["order"],
    paper="Zhang & Chen 2023 (DEIS), eq. 15 (tAB-DEIS)",
    presets={
        "DEISMultistepScheduler": {"order": 2, "lower_order_final": True},
        "DEIS-tAB3": {"order": 4, "variable": "t"},
    },
)
def deis(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[Literal[1, 2, 3, 4], ORDER] = 3,
    variable: Annotated[
        Literal["log_rho", "t", "rho"],
        Option("polynomial in ln sigma, the VP time (the paper's tAB), or sigma (lms)"),
    ] = "log_rho",
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """x_t = x_s + sum_i c_i eps_i, eps a polynomial in `variable`; Euler's step to sigma = 0."""
    history: list[Any] = []
    for i, k in enumerate(orders(sigmas, order, lower_order_final)):
        s, t = sigmas[i], sigmas[i + 1]
        d = yield x, s
        history = [eps(x, d, s), *history[: order - 1]]
        if k == 1:
            x = euler_step(x, d, s, t)
        else:
            at = spaced(VARIABLES[variable][0], [sigmas[i - j] for j in range(k)], t)
            x = x + combine(combination(*VARIABLES[variable], at, t), history)
    return x


def adams_bashforth(k: int) -> list[float]:
    """The fixed coefficients on an even grid, newest first, with sum 1: k = 2 is 3/2, -1/2."""
    return combination(identity, straight, [float(-j) for j in range(k)], 1.0)


@sampler(
    "ipndm",
    order=lambda options: min(options["order"], 2),
    paper="Liu et al. 2022 (PNDM), eq. 12; Zhang & Chen 2023 (DEIS), where it is iPNDM",
    aliases=("IPNDMScheduler",),
)
def ipndm(
    x: Any, sigmas: Sequence[float], *, order: Annotated[Literal[1, 2, 3, 4], ORDER] = 4
) -> Coroutine:
    """x_t = x_s + (t - s) sum_i a_i eps_i, with the Adams-Bashforth coefficients a_i of an even
    grid whatever the grid is: of order 2 at most."""
    history: list[Any] = []
    for s, t in pairwise(sigmas):
        d = yield x, s
        history = [eps(x, d, s), *history[: order - 1]]
        x = x + (t - s) * combine(adams_bashforth(len(history)), history)
    return x


@sampler(
    "plms",
    order=2,
    first_calls=2,
    paper="Liu et al. 2022 (PNDM), section 3.3, with the second-order start of Stable Diffusion",
    aliases=("PNDM", "PNDMScheduler"),  # as with skip_prk_steps, which Stable Diffusion sets
)
def plms(x: Any, sigmas: Sequence[float]) -> Coroutine:
    """`ipndm` of order 4 whose first step is a trapezoidal one (one evaluation more)."""
    history: list[Any] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        d = yield x, s
        history = [eps(x, d, s), *history[:3]]
        slope = combine(adams_bashforth(len(history)), history)
        if i == 0 and t > 0:
            x_t = euler_step(x, d, s, t)
            d_t = yield x_t, t
            slope = 0.5 * (history[0] + eps(x_t, d_t, t))
        x = x + (t - s) * slope
    return x
