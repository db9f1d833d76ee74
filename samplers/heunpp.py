"""Heun++: a step with the slopes of the levels ahead, whose x Euler steps predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from kdiff.samplers.coefficients import CLOSEST, coefficients, combine
from kdiff.samplers.contract import Ask
from kdiff.samplers.loops import S_CHURN, S_NOISE, S_TMAX, S_TMIN, churned
from kdiff.samplers.registry import Coroutine, Final, Noise, Option, sampler
from kdiff.samplers.steps import eps, euler_step


def exact_weights(levels: Sequence[float], t: float) -> list[float]:
    """The weights of the slopes at `levels` with which polynomials in sigma are averaged exactly
    over the step from the first level to t; of those before the first two that are too close."""
    nodes = [(sigma - levels[0]) / (t - levels[0]) for sigma in levels]
    close = (i for i, (a, b) in enumerate(pairwise(nodes), 1) if abs(a - b) < CLOSEST)
    used = nodes[: next(close, len(nodes))]
    return coefficients(used, np.array([1 / (j + 1) for j in range(len(used))]))


def published_weights(levels: Sequence[float], first: float) -> list[float]:
    """sigma_j / (k sigma_0) for each of the k levels but the first, which has the rest."""
    ahead = [sigma / (len(levels) * first) for sigma in levels[1:]]
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
    follow, x_(j + 1) = x_j + (sigma_(j + 1) - sigma_j) e_j. The w_j average polynomials in sigma
    exactly over the step; with two slopes this is `heun`. Euler's step to sigma = 0.
    """
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
        weights = published_weights(levels, sigmas[0]) if as_published else exact_weights(levels, t)
        return x + (t - s) * combine(weights, found)

    churn = {"S_churn": S_churn, "S_tmin": S_tmin, "S_tmax": S_tmax, "S_noise": S_noise}
    return churned(step)(x, sigmas, noise=noise, **churn)
