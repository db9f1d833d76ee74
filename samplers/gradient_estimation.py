"""Gradient estimation: Euler's step along two noise predictions, extrapolated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from kdiff.samplers.coefficients import combine
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import eps, euler_step


@sampler(
    "gradient_estimation",
    order=1,
    paper="Permenter & Yuan 2024 (Interpreting and improving diffusion models), algorithm 2",
)
def gradient_estimation(
    x: Any,
    sigmas: Sequence[float],
    *,
    gamma: Annotated[float, Option("weight of the newest noise prediction", 1, 5)] = 2.0,
) -> Coroutine:
    """x_t = x_s + (t - s) (gamma eps + (1 - gamma) eps_last): the paper's 2 eps - eps_last with
    gamma = 2. Order 1; gamma = 3/2 on an even grid is `ipndm` of order 2."""
    last: Any = None
    for s, t in pairwise(sigmas):
        d = yield x, s
        e = eps(x, d, s)
        if last is None or t == 0:
            x = euler_step(x, d, s, t)
        else:
            x = x + (t - s) * combine([gamma, 1 - gamma], [e, last])
        last = e
    return x
