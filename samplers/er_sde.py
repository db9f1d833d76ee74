"""ER-SDE: the reverse SDEs that keep the marginals, each named by its noise scale function phi.

With r = phi(t) / phi(s), one step is, exactly,

    x_t = r x_s + integral_s^t D d(phi(t) / phi(sigma)) + sqrt(t^2 - s^2 r^2) n

(Cui et al. 2023, propositions 1 and 2, in the variance-exploding frame). phi = sigma is the ODE,
phi = sigma^2 the usual reverse SDE. D is taken for a polynomial in sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.coefficients import coefficients, combine, moments, orders, usable
from kdiff.samplers.loops import S_NOISE
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler

# ln(phi(sigma) / sigma), which must not fall as sigma grows: its growth over a step is the noise.
Scaler = Callable[[Any], Any]
SCALERS: dict[str, Scaler] = {
    "ode": lambda sigma: 0.0 * sigma,
    "sde": lambda sigma: np.log(sigma),
    "sde_1": lambda sigma: np.log(np.exp(-1 / sigma) + 10),
    "sde_2": lambda sigma: np.log(sigma) / 2,
    "sde_3": lambda sigma: 1.5 * np.log(sigma),
    "sde_4": lambda sigma: np.log(np.log1p(100 * sigma**1.5)) - 0.1 * np.log(sigma),
    "sde_5": lambda sigma: np.logaddexp(sigma**0.3, math.log(10)),
}
SCALER = Option(
    "phi: sigma (ode), sigma^2 (sde), or one of the paper's sde_1 to sde_5, of which sde_5, "
    "sigma (exp(sigma^0.3) + 10), is the one of its experiments"
)
AS_PUBLISHED = Option(
    "the integrals as sums of 200 terms, which leave a small error of order 1, and "
    "order 3 with the slope of order 2"
)
TERMS = 200  # ComfyUI's; 100 in the authors' code


def log_ratio(scaler: Scaler, s: float, t: Any) -> Any:
    """ln(phi(t) / phi(s))."""
    return scaler(t) - scaler(s) + np.log(t / s)


def weights(scaler: Scaler, s: float, t: float, k: int) -> np.ndarray:
    """The first k moments of d(phi(t) / phi(sigma)) in v = (sigma - s) / (t - s), by parts:
    m_0 = 1 - r, m_j = j integral_0^1 v^(j - 1) (1 - phi(t) / phi(sigma)) dv."""

    def left(v: np.ndarray) -> np.ndarray:
        return -np.expm1(-log_ratio(scaler, t, s + (t - s) * v))

    powers = np.arange(1, k)
    return np.array([-np.expm1(log_ratio(scaler, s, t)), *powers * moments(left, k - 1)])


def published_weights(scaler: Scaler, s: float, t: float, at: Sequence[float]) -> np.ndarray:
    """`weights`, with the integrals as sums over equal parts of [t, s], each with its value at the
    end nearer to t. The third divided difference is added to a slope that was taken between the
    last two predictions, not at s."""
    v = 1 - np.arange(TERMS) / TERMS
    left = -np.expm1(-log_ratio(scaler, t, s + (t - s) * v))
    m = [-np.expm1(log_ratio(scaler, s, t)), left.mean(), 1 - 2 * (v * (1 - left)).mean()]
    if len(at) == 3:
        m[2] += at[1] * m[1]
    return np.array(m[: len(at)])


@sampler(
    "er_sde",
    # Published, its integrals are sums of 200 terms, which end the convergence.
    order=lambda o: None if o["as_published"] else o["order"],
    paper="Cui et al. 2023 (ER-SDE-Solvers), algorithms 1 to 3, for the variance-exploding SDE",
    strong=1,
    weak=lambda o: None if o["as_published"] else min(o["order"], 2),
    noise="white",
    ode={"scaler": "ode"},
)
def er_sde(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    order: Annotated[Literal[1, 2, 3], Option("how many predictions are combined")] = 3,
    scaler: Annotated[
        Literal["ode", "sde", "sde_1", "sde_2", "sde_3", "sde_4", "sde_5"], SCALER
    ] = "sde_5",
    s_noise: Annotated[float, S_NOISE] = 1.0,
    as_published: Annotated[bool, AS_PUBLISHED] = False,
) -> Coroutine:
    """x_t = r x_s + sum_i c_i D_i + sqrt(t^2 - s^2 r^2) n, sum_i c_i = 1 - r, r = phi(t) / phi(s).
    sde_4 is a reverse SDE below sigma = 1,000 only; above, it adds no noise."""
    phi = SCALERS[scaler]
    history: list[tuple[Any, float]] = []
    for (s, t), k in zip(pairwise(sigmas), orders(sigmas, order), strict=True):
        d = yield x, s
        if t == 0:
            return d
        history = [(d, s), *history[: order - 1]]
        at = [(q - s) / (t - s) for _, q in history[:k]]
        at = at[: usable(at)]
        m = published_weights(phi, s, t, at) if as_published else weights(phi, s, t, len(at))
        c = coefficients(at, m)
        x = math.exp(log_ratio(phi, s, t)) * x + combine(c, [d for d, _ in history])
        growth = float(phi(s) - phi(t))
        if growth > 0:
            x = x + s_noise * t * math.sqrt(-math.expm1(-2 * growth)) * noise(s, t)
    return x
