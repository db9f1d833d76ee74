"""SEEDS: exponential Runge-Kutta on the SDE, with the noise of every part of a step exact.

The stages lie at m_i = s^(1 - r_i) t^(r_i). Each takes D as known so far, with its exponential
weight, from x_s, and adds the noise up to there, which the next one carries on: the noises of a
step's parts are of disjoint intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from kdiff.samplers.exponential import History, exact_moments, second_order, step
from kdiff.samplers.loops import ETA, S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler

PHI_1 = Option("the weight of the stage: phi_1 / (2 r), or phi_2 / r, the exact integral of a line")

stochastic = partial(sampler, strong=1, weak=2, noise="brownian", ode={"eta": 0})


def carried(n: Any, s: float, t: float, eta: float, s_noise: float, noise: Noise) -> Any:
    """The noise `n` at noise level s, on at t: n_t = (t / s)^(1 + eta) n_s
    + t sqrt(1 - (t / s)^(2 eta)) n."""
    if s == t:
        return n
    fresh = s_noise * t * math.sqrt(-math.expm1(2 * eta * math.log(t / s)))
    return (t / s) ** (1 + eta) * n + fresh * noise(s, t)


def staged(
    x: Any,
    sigmas: Sequence[float],
    fractions: Sequence[float],
    solver_type: str,
    *,
    noise: Noise,
    eta: float,
    s_noise: float,
) -> Coroutine:
    """Every stage, and then the step, integrates the line through D_s and the D before it."""
    midpoint_or_heun = {"phi_1": "midpoint", "phi_2": "heun"}[solver_type]
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t == 0:
            return d
        history: History = [(d, s)]
        y, level, n = x, s, 0.0 * x
        for i, m in enumerate([s * (t / s) ** r if r < 1 else t for r in fractions] + [t]):
            if i:
                history = [((yield y, level), level), (d, s)]
            weights = second_order(exact_moments(s, m, len(history), eta), midpoint_or_heun)
            y = step(x, history, s, m, weights, eta)
            if eta:
                n = carried(n, level, m, eta, s_noise, noise)
                y = y + n
            level = m
        x = y
    return x


@stochastic(
    "seeds_2",
    order=2,
    calls=2,
    first_calls=2,
    paper="Gonzalez et al. 2023 (SEEDS), algorithm 2, on the data prediction",
)
def seeds_2(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    r: Annotated[float, Option("where in the step, in log sigma, the stage is", 0.05, 1)] = 0.5,
    solver_type: Annotated[Literal["phi_1", "phi_2"], PHI_1] = "phi_1",
) -> Coroutine:
    """x_m from D_s; then x_t = (t / s)^(1 + eta) x_s + (1 - (t / s)^(1 + eta)) ((1 - 1 / (2 r)) D_s
    + D_m / (2 r)) + noise, m = s^(1 - r) t^r."""
    return staged(x, sigmas, [r], solver_type, noise=noise, eta=eta, s_noise=s_noise)


@stochastic(
    "seeds_3",
    order=lambda o: 3 if math.isclose(o["r_2"], 2 / 3) else 2,
    calls=3,
    first_calls=3,
    paper="Gonzalez et al. 2023 (SEEDS), algorithm 3, on the data prediction",
)
def seeds_3(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
    r_1: Annotated[float, Option("where in the step the first stage is", 0.05, 1)] = 1 / 3,
    r_2: Annotated[float, Option("where the second one is, after r_1", 0.05, 1)] = 2 / 3,
) -> Coroutine:
    """x_t = (t / s)^(1 + eta) x_s + (m_0 - m_1 / r_2) D_s + (m_1 / r_2) D_2 + noise, with the
    exponential moments m_j of the step; D_2 is at r_2, after a stage at r_1, both alike."""
    if r_1 >= r_2:
        raise ValueError(f"seeds_3 needs r_1 below r_2, not r_1={r_1:g} and r_2={r_2:g}")
    return staged(x, sigmas, [r_1, r_2], "phi_2", noise=noise, eta=eta, s_noise=s_noise)
