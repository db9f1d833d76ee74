"""Heun++: a step with the slopes of the levels ahead, whose x Euler steps predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.coefficients import combine
from kdiff.samplers.contract import Ask
from kdiff.samplers.loops import S_CHURN, S_NOISE, S_TMAX, S_TMIN, churned
from kdiff.samplers.registry import Coroutine, Final, Noise, Option, sampler
from kdiff.samplers.steps import eps, euler_step


def weights(levels: Sequence[float], t: float, published_for: float | None) -> list[float]:
    """w_j = beta sigma_j for the levels ahead, and the rest for the first, s.

    With beta = 1 / (k sigma_0), k levels, as published, their mean is not in the middle of the
    step, so that the order is 1. Here beta puts it there: sum_j w_j (sigma_j - s) = (t - s) / 2.
    """
    s = levels[0]
    if published_for is None:
        beta = (t - s) / 2 / math.fsum(sigma * (sigma - s) for sigma in levels[1:])
    else:
        beta = 1 / (len(levels) * published_for)
    ahead = [beta * sigma for sigma in levels[1:]]
    return [1 - math.fsum(ahead), *ahead]


def slopes_of_steps(steps: int, final: Final, options: Mapping[str, Any]) -> list[int]:
    """How many slopes each step takes: as many as there are levels to take them at. Those are all
    above zero, as published all but the last."""
    last_counts = final == "sigma_min" and not options["as_published"]
    return [min(options["slopes"], steps - i + last_counts) for i in range(steps)]


@sampler(
    "heunpp2",
    order=lambda options: 1 if options["as_published"] else 2,
    nfe=lambda steps, final, options: sum(slopes_of_steps(steps, final, options)),
    paper="Heun++ (Carzit 2023, sd-webui-sampler-heunpp), with weights of order 2",
    noise="white",
    ode={"S_churn": 0},
    aliases=("Heun++", "Heun++ 2"),
    presets={"heunpp3": {"slopes": 4}},
)
def heunpp2(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    slopes: Annotated[int, Option("of how many levels, this one and those ahead", 2, 9)] = 3,
    as_published: Annotated[
        bool, Option("weights sigma_j / (k sigma_0), as in ComfyUI: order 1")
    ] = False,
    S_churn: Annotated[float, S_CHURN] = 0.0,
    S_tmin: Annotated[float, S_TMIN] = 0.0,
    S_tmax: Annotated[float, S_TMAX] = math.inf,
    S_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = x_s + (t - s) sum_j w_j e_j, e_j = (x_j - D) / sigma_j at s, t and the levels that
    follow, x_(j + 1) = x_j + (sigma_(j + 1) - sigma_j) e_j. The w_j are proportional to sigma_j,
    so that noisy slopes at low levels count little; with two slopes this is `heun`. Euler's step
    to sigma = 0."""
    options = {"slopes": slopes, "as_published": as_published}
    final: Final = "zero" if sigmas[-1] == 0 else "sigma_min"
    counts = slopes_of_steps(len(sigmas) - 1, final, options)

    def step(x: Any, s: float, t: float) -> Coroutine:
        i = sigmas.index(t) - 1
        levels = [s, *sigmas[i + 1 : i + counts[i]]]
        y, found = x, []
        for sigma, below in pairwise([*levels, t]):
            d = yield Ask(y, sigma, step=i)
            found.append(eps(y, d, sigma))
            y = euler_step(y, d, sigma, below)
        if len(levels) == 1:
            return y
        w = weights(levels, t, sigmas[0] if as_published else None)
        return x + (t - s) * combine(w, found)

    churn = {"S_churn": S_churn, "S_tmin": S_tmin, "S_tmax": S_tmax, "S_noise": S_noise}
    return churned(step)(x, sigmas, noise=noise, **churn)
