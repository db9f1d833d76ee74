"""Adams-Bashforth on a velocity v, for which a scaled state y = x / scale(sigma) moves by
dy = v dtime:

    x_t = scale(t) (x_s / scale(s) + sum_i c_i v_i),   sum_i c_i = time(t) - time(s).

`flow` is rectified flow's, y = x / (1 + sigma), time = sigma / (1 + sigma), v = eps - D; `angle` is
that of the variance-preserving frame, y = x / sqrt(1 + sigma^2), time = arctan(sigma),
v = (eps - sigma D) / sqrt(1 + sigma^2) (Salimans & Ho 2022, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from kdiff.samplers.adams import combination, geometric, spaced
from kdiff.samplers.coefficients import LOWER, combine, orders
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import euler_step

ORDER = Option("how many velocities are combined", 1, 9)
Number = Callable[[Any], Any]


@dataclass(frozen=True)
class Velocity:
    """v = scale eps - slope x, slope = dscale/dsigma, is taken for a polynomial in variable(sigma),
    and integrated over a time with dtime/dsigma = 1 / scale^2."""

    scale: Number
    slope: Number
    variable: Number

    def of(self, x: Any, d: Any, s: float) -> Any:
        a = self.scale(s) / s
        return (a - self.slope(s)) * x - a * d

    def in_time(self, s: float, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sigma, speed = geometric(s, t, u)
        return sigma, speed / self.scale(sigma) ** 2

    def coefficients(self, at: Sequence[float], t: float) -> list[float]:
        return combination(self.variable, self.in_time, spaced(self.variable, at, t), t)


FLOW = Velocity(
    scale=lambda sigma: 1 + sigma,
    slope=lambda sigma: 1.0,
    variable=lambda sigma: sigma / (1 + sigma),
)
ANGLE = Velocity(
    scale=lambda sigma: np.sqrt(1 + sigma * sigma),
    slope=lambda sigma: sigma / np.sqrt(1 + sigma * sigma),
    variable=np.log,
)


def adams_on(
    velocity: Velocity,
    x: Any,
    sigmas: Sequence[float],
    order: int,
    coefficients_of: Callable[[Sequence[float], float], Sequence[float]] | None = None,
    *,
    scale_of: Callable[[float, float], float] | None = None,
    lower_order_final: bool = False,
) -> Coroutine:
    """The loop above; Euler's step to sigma = 0. Coefficients and the scale at the end of a step
    may be others than the exact ones."""
    coefficients_of = coefficients_of or velocity.coefficients
    scale = velocity.scale
    history: list[Any] = []
    for i, k in enumerate(orders(sigmas, order, lower_order_final)):
        s, t = sigmas[i], sigmas[i + 1]
        d = yield x, s
        history = [velocity.of(x, d, s), *history[: order - 1]]
        if t == 0:
            x = euler_step(x, d, s, t)
        else:
            c = coefficients_of([sigmas[i - j] for j in range(k)], t)
            moved = (scale_of(s, t) if scale_of else scale(t)) * combine(c, history)
            x = (scale(t) / scale(s)) * x + moved
    return x


@sampler(
    "velocity_adams",
    order=lambda o: min(o["order"], 2) if o["lower_order_final"] else o["order"],
    paper="Liu et al. 2023 (rectified flow), eq. 1, by Adams-Bashforth with variable steps",
    aliases=("vAB", "vABSampler"),
)
def velocity_adams(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, ORDER] = 2,
    lower_order_final: Annotated[bool, LOWER] = False,
) -> Coroutine:
    """v = eps - D a polynomial in the flow's time sigma / (1 + sigma), as flow models predict it:
    x_t = (1 + t) (x_s / (1 + s) + sum_i c_i v_i), sum_i c_i = t / (1 + t) - s / (1 + s)."""
    return adams_on(FLOW, x, sigmas, order, lower_order_final=lower_order_final)


def published_reab_scale(s: float, t: float) -> float:
    """azula has sqrt(alpha_t^2 + sigma_s^2) for sqrt(alpha_t^2 + sigma_t^2); for alpha = 1."""
    return math.hypot(1, s)


@sampler(
    "reab",
    order=lambda o: 1 if o["as_published"] else o["order"],
    paper="Zheng et al. 2023 (DPM-Solver-v3), eq. 8 and 9, with the statistics of N(0, 1) data",
    aliases=("REABSampler",),
)
def reab(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, ORDER] = 2,
    as_published: Annotated[bool, Option("with azula's scale of the step: order 1")] = False,
) -> Coroutine:
    """Rosenbrock-type exponential Adams-Bashforth: what is linear for N(0, 1) data is exact, and
    the rest, f, a polynomial in ln sigma. f is v of the variance-preserving frame:
    x_t = sqrt(1 + t^2) (x_s / sqrt(1 + s^2) + sum_i c_i v_i), sum_i c_i = arctan t - arctan s,
    v = (eps - sigma D) / sqrt(1 + sigma^2)."""
    return adams_on(
        ANGLE, x, sigmas, order, scale_of=published_reab_scale if as_published else None
    )
