"""STORK: stabilised Runge-Kutta methods whose stages see a polynomial instead of the network.

The velocity at each stage is a Taylor polynomial in time around the start of the step, with
derivatives by differences of the last velocities. It does not depend on the state of the stage. So
the stages add up to a quadrature of that polynomial, and the step to one of a linear multistep
method: of all stages only their moments m_j remain, which are what the Runge-Kutta method makes of
the velocity u^j.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Annotated, Any

import numpy as np

from kdiff.samplers.coefficients import coefficients
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.velocity import FLOW, adams_on, spaced

STAGES = Option("of the Runge-Kutta-Gegenbauer method", 3, 1000)
AS_PUBLISHED = Option("with the slips of the authors' code, which cost one order")
EXACT = (1.0, 1 / 2, 1 / 3)  # of any method of order 3 or more, like ROCK4


def gegenbauer(j: int) -> float:
    """b_j of the Runge-Kutta-Gegenbauer method of order 2 (Skaras et al. 2021, eq. 21)."""
    if j < 2:
        return (1.0, 1 / 3)[j]
    return 4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3))


def integral(velocities: Sequence[float]) -> list[float]:
    """What the method's stages, 0 to s, come to with these velocities at stages 0 to s - 1."""
    s, b = len(velocities), gegenbauer
    w = 6 / ((s + 4) * (s - 1))
    stages = [0.0, w * velocities[0]]
    for j in range(2, s + 1):
        mu = (2 * j + 1) * b(j) / (j * b(j - 1))
        nu = -(j + 1) * b(j) / (j * b(j - 2))
        gamma = -mu * w * (1 - j * (j + 1) * b(j - 1) / 2)
        moved = mu * w * velocities[j - 1] + gamma * velocities[0]
        stages.append(mu * stages[-1] + nu * stages[-2] + moved)
    return stages


@cache
def quadrature(s: int, as_published: bool) -> tuple[float, ...]:
    """m_0, m_1, m_2 of s stages, whose times are what the method makes of a velocity of 1. In the
    authors' code these are the times of another method, Runge-Kutta-Legendre: m_1 is not 1/2."""
    times = np.array(integral([1.0] * s)[:-1])
    if as_published:
        times = np.array([(j * j + j - 2) / (s * s + s - 2) for j in range(s)])
        times[:2] = 0, 4 / (3 * (s * s + s - 2))
    return tuple(integral(list(times**j))[-1] for j in range(3))


def stabilised(m: Sequence[float], at: Sequence[float], t: float) -> list[float]:
    """The coefficients of the velocities at the sigmas `at`, newest first."""
    used = spaced(FLOW.variable, at, t)
    start, *before = (FLOW.variable(sigma) for sigma in used)
    h = FLOW.variable(t) - start
    nodes = [0.0, *((tau - start) / h for tau in before)]
    exact = 1.0, 1 / 2  # warms up by Adams-Bashforth
    moments = np.array(m if len(nodes) == 3 else exact[: len(nodes)])
    return [h * c for c in coefficients(nodes, moments)]


def published(m: Sequence[float], at: Sequence[float], t: float) -> list[float]:
    """The same, with the first derivative of an even grid whatever the grid is."""
    used = spaced(FLOW.variable, at, t)
    tau = [FLOW.variable(sigma) for sigma in (*reversed(used), t)]
    h, *last = np.diff(tau)[::-1].tolist()
    if not last:
        return [h]
    if len(last) == 1:
        return [h + h * h / (2 * last[0]), -h * h / (2 * last[0])]
    h1, h2 = last
    first = np.array([3, -4, 1]) / (2 * h1)
    second = 2 * np.array([h2, -(h1 + h2), h1]) / (h1 * h2 * (h1 + h2))
    row = h * (m[0] * np.array([1, 0, 0]) + m[1] * h * first + m[2] / 2 * h * h * second)
    return [float(c) for c in row]


def stork(x: Any, sigmas: Sequence[float], m: Sequence[float], as_published: bool) -> Coroutine:
    return adams_on(FLOW, x, sigmas, 3, partial(published if as_published else stabilised, m))


@sampler(
    "stork2",
    order=lambda o: 1 if o["as_published"] else 2,
    paper="Tan et al. 2025 (STORK), algorithm 1, two derivatives; flow matching's velocity",
    aliases=("STORK-2",),
)
def stork2(
    x: Any,
    sigmas: Sequence[float],
    *,
    stages: Annotated[int, STAGES] = 50,
    as_published: Annotated[bool, AS_PUBLISHED] = False,
) -> Coroutine:
    """x_t = (1 + t) (x_s / (1 + s) + h (m_0 v + m_1 h v' + m_2 h^2 v'' / 2)), v = eps - D over the
    time tau = sigma / (1 + sigma), h = tau_t - tau_s, with the moments m of the
    Runge-Kutta-Gegenbauer method: m_0 = 1, m_1 = 1/2, and m_2 near 1/4 for 1/3."""
    return stork(x, sigmas, quadrature(stages, as_published), as_published)


@sampler(
    "stork4",
    order=lambda o: 2 if o["as_published"] else 3,
    paper="Tan et al. 2025 (STORK), algorithm 2, two derivatives; flow matching's velocity",
    aliases=("STORK-4",),
)
def stork4(
    x: Any, sigmas: Sequence[float], *, as_published: Annotated[bool, AS_PUBLISHED] = False
) -> Coroutine:
    """`stork2` with the moments of ROCK4, a method of order 4: 1, 1/2 and 1/3, exactly. With two
    derivatives that is `velocity_adams` of order 3, not 4."""
    return stork(x, sigmas, EXACT, as_published)
