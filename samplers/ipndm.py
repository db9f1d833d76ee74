"""The pseudo linear multistep family on eps = dx/dsigma: iPNDM and PLMS, with the coefficients of
an even grid on any, and iPNDM_v, with those of the grid itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from kdiff.samplers.adams import ORDER, VARIABLES, adams, adams_bashforth, combination, identity
from kdiff.samplers.coefficients import combine
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import eps, euler_step


@sampler(
    "ipndm",
    order=lambda options: min(options["order"], 2),
    paper="Liu et al. 2022 (PNDM), eq. 12; Zhang & Chen 2023 (DEIS), where it is iPNDM",
    aliases=("IPNDMScheduler",),
)
def ipndm(x: Any, sigmas: Sequence[float], *, order: Annotated[int, ORDER] = 4) -> Coroutine:
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


def published_ipndm_v(at: Sequence[float], t: float) -> list[float]:
    """The coefficients of iPNDM_v as its authors' code has them, up to order 4.

    x_t = x_s + h (e_0 + g_1 b_1 d_1 + g_2 b_2 d_2 + g_3 b_3 d_3) is variable-step Adams in backward
    differences d_j (Hairer, Norsett & Wanner 1993, III.5). Three slips: b_2 multiplies only a part
    of g_2; g_3 adds what it should subtract; and e_3 has h_1 / h_2 where h_2 / h_3 belongs.
    """
    if len(at) < 3:
        return combination(*VARIABLES["rho"], at, t)
    h, h1, h2, *rest = (a - b for a, b in pairwise([t, *at]))
    r = h1 / h2
    g2 = h / (3 * (h + h1))
    c = np.array([1 + h / (2 * h1), -h / (2 * h1), 0, 0])
    c += (1 - g2 * h * (h + h1) / (h1 * (h1 + h2))) / 2 * np.array([1, -1 - r, r, 0])
    if rest:
        h3 = rest[0]
        g3 = (1 - g2) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
        b3 = h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        q = h1 * (h1 + h2) / (h2 * (h2 + h3))
        c += g3 * b3 * np.array([1, -1 - r - q, r + q * (1 + h2 / h3), -q * r])
    return [float(h * one) for one in c[: len(at)]]


@sampler(
    "ipndm_v",
    order=lambda o: 1 if o["as_published"] and o["order"] == 4 else o["order"],
    paper="Zhang & Chen 2023 (DEIS), iPNDM with variable steps, as in diff-sampler (Zhou et al.)",
)
def ipndm_v(
    x: Any,
    sigmas: Sequence[float],
    *,
    order: Annotated[Literal[1, 2, 3, 4], Option("how many noise predictions are combined")] = 4,
    as_published: Annotated[bool, Option("the authors' code: 4 is order 1")] = False,
) -> Coroutine:
    """Variable-step Adams-Bashforth: x_t = x_s + sum_i c_i eps_i, eps a polynomial in sigma.
    This is `deis` with variable=rho, and `lms` except in a step to zero, which is Euler's."""
    coefficients_of = published_ipndm_v if as_published else partial(combination, *VARIABLES["rho"])
    return adams(x, sigmas, order, coefficients_of, identity)
