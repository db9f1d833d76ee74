"""A step of exponential Runge-Kutta methods in lambda = -ln sigma, on D or on the noise prediction.

A step is x_t = (t / s) x_s + integral_s^t e^(lambda - lambda_t) D dlambda, or
x_t = x_s + integral_s^t eps dsigma. In units of the step, stage i is at c_i, and

    x_i = r_i x_s + sum_(j < i) a_ij p_j,    p = D, r_i = sigma_i / s, or p = eps, r_i = 1.

The a_ij are made of the moments M_k(c) = integral_0^c w(u) u^k du of the weight w of the integral
up to c. With D these are k! h c^(k + 1) phi_(k + 1)(-c h), h = ln(s / t), in the literature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from kdiff.samplers.coefficients import combine, moments
from kdiff.samplers.contract import Ask
from kdiff.samplers.registry import Coroutine
from kdiff.samplers.steps import eps, euler_step, level

Moments = Callable[[float], np.ndarray]  # [M_0(c), M_1(c), M_2(c)]
Row = list[float]
Asked = tuple[Any, Any, float]  # x, D, sigma


class Method(NamedTuple):
    """`c`: where the stages after the first are. `rows`: the weights of these, then of the step."""

    c: Sequence[float]
    rows: Callable[[Moments], list[Row]]


class Prediction(NamedTuple):
    """What is integrated: `state(x, s, t, row, asked)`, where all (x, D, sigma) that were asked
    for, weighted by the row, lead from x at s; and the moments that rows are made of."""

    state: Callable[[Any, float, float, Row, Sequence[Asked]], Any]
    moments: Callable[[float, float, float], np.ndarray]


def data_moments(s: float, t: float, c: float, eta: float = 0.0) -> np.ndarray:
    """M_k(c) for D; those of its SDE have (1 + eta) h for h."""
    h = (1 + eta) * math.log(s / t)
    return c * moments(lambda u: h * np.exp(c * h * (u - 1)), 3, lambda u: c * u)


def noise_moments(s: float, t: float, c: float) -> np.ndarray:
    """M_k(c) for eps, integrated over sigma(u) = s^(1 - u) t^u."""
    h = math.log(s / t)
    return c * moments(lambda u: -h * s * np.exp(-c * h * u), 3, lambda u: c * u)


def data_state(
    x: Any, s: float, t: float, row: Row, asked: Sequence[Asked], eta: float = 0.0
) -> Any:
    return (t / s) ** (1 + eta) * x + combine(row, [d for _, d, _ in asked])


def noise_state(x: Any, s: float, t: float, row: Row, asked: Sequence[Asked]) -> Any:
    """Euler's step and what the other eps differ from its; rows sum to t - s."""
    _, d, _ = asked[0]
    total = euler_step(x, d, s, t)
    for weight, stage in zip(row[1:], asked[1:], strict=True):
        total = total + weight * (eps(*stage) - eps(*asked[0]))
    return total


def data_prediction(eta: float = 0.0) -> Prediction:
    return Prediction(partial(data_state, eta=eta), partial(data_moments, eta=eta))


NOISE_PREDICTION = Prediction(noise_state, noise_moments)


def no_noise(sigma: float) -> None:
    return None


def staged(
    x: Any,
    levels: Sequence[float],
    rows: Sequence[Row],
    prediction: Prediction,
    steps: Sequence[int],
    added: Callable[[float], Any] = no_noise,
) -> Coroutine:
    """A step whose stages are at `levels`, all but the last, which is where it ends.
    `added(sigma)`: the SDE's noise from the first level to sigma, or None. `steps`: of each ask."""
    y, asked = x, list[Asked]()
    for row, sigma, end, step in zip(rows, levels[:-1], levels[1:], steps, strict=True):
        d = yield Ask(y, sigma, step=step)
        asked.append((y, d, sigma))
        y = prediction.state(x, levels[0], end, row, asked)
        n = added(end)
        y = y if n is None else y + n
    return y


def exponential_step(
    x: Any,
    s: float,
    t: float,
    method: Method,
    prediction: Prediction,
    step: int,
    added: Callable[[float], Any] = no_noise,
) -> Coroutine:
    levels = [s, *(level("log_sigma", s, t, c) for c in method.c), t]
    rows = method.rows(lambda c: prediction.moments(s, t, c))
    return staged(x, levels, rows, prediction, [step] * len(rows), added)


def exponential_rk(
    x: Any, sigmas: Sequence[float], method: Method, prediction: Prediction
) -> Coroutine:
    """The loop: `method` in each step, Euler's to sigma = 0."""
    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = (
            (yield x, s)
            if t == 0
            else (yield from exponential_step(x, s, t, method, prediction, i))
        )
    return x
