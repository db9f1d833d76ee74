"""ParaDiGMS: steps of the ODE side by side, corrected until they agree (Shih et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from kdiff.samplers.adaptive_steps import Limit, by_sample, rms
from kdiff.samplers.registry import Coroutine, Option, sampler
from kdiff.samplers.steps import euler_step

MOST = 100_000


@sampler(
    "paradigms",
    order=1,
    paper="Shih et al. 2023 (ParaDiGMS), algorithm 1, on Euler's (DDIM's) step",
    nfe=None,
    limit=MOST,
    linear=False,
    aliases=("DDIMParallelScheduler",),
)
def paradigms(
    x: Any,
    sigmas: Sequence[float],
    *,
    tolerance: Annotated[float, Option("rms change that ends corrections, over sigma", 0)] = 1e-3,
    window: Annotated[int, Option("steps side by side", 1)] = 16,
    limit: Limit = MOST,
) -> Coroutine:
    """Picard iteration x_(j+1) <- x_i + sum_(i <= m <= j) (Euler's step from x_m - x_m), for all j
    in the window i, .., i + window - 1 at once: one round of evaluations. Then the window moves on
    to the first j whose change exceeds tolerance * sigma_j. The first step of a window is always
    right, so there are never more rounds than steps. With tolerance 0 the result is `euler`'s, to
    rounding."""
    return by_sample(lambda one, i: picard(one, sigmas, tolerance, window), x)


def picard(x: Any, sigmas: Sequence[float], tolerance: float, window: int) -> Coroutine:
    """The iteration for one sample."""
    steps = len(sigmas) - 1
    xs, begin = [x] * (steps + 1), 0
    while begin < steps:
        end = min(begin + window, steps)
        ds = yield [(xs[j], sigmas[j]) for j in range(begin, end)]
        before, agreed, moved = list(xs), True, xs[begin]
        for j, d in enumerate(ds, begin):
            moved = moved + (euler_step(before[j], d, sigmas[j], sigmas[j + 1]) - before[j])
            xs[j + 1] = moved
            if agreed:
                begin = j + 1
                agreed = rms(moved - before[begin]) <= tolerance * sigmas[begin]
        xs[end + 1 :] = [xs[end]] * (steps - end)
    return xs[-1]
