"""Langevin steps: at one noise level, down the score (D - x) / s^2 with fresh noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from kdiff.samplers.contract import Ask
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import eps

TINY = 1e-12  # next to 1


def moved(x: Any, e: Any, s: float, step: Any, n: Any) -> Any:
    """x + step s^2 score + s sqrt(2 step) n, with the noise prediction e = -s score."""
    return x - (s * step) * e + (s * (2 * step) ** 0.5) * n


def squares(x: Any) -> Any:
    """The sum of squares of each sample, in a shape that multiplies samples."""
    flat = x.reshape(len(x), -1)
    return (flat * flat).sum(1).reshape(len(x), *[1] * (x.ndim - 1))


def widened(x: Any) -> Any:
    return x.float() if x.element_size() < 4 else x


def corrected(x: Any, d: Any, s: float, snr: float, shrink: float, n: Any) -> Any:
    """One step of Song et al. 2021, algorithm 4 (5 with `shrink`, their alpha, below 1):
    x + step score + sqrt(2 step) n, step = 2 shrink (snr |n| / |score|)^2. Samples whose D is x to
    rounding have no score, and stay: that happens where sigma is below the spacing of numbers, in
    float16 at 0.002. Numbers of 16 bits are computed with as 32, in which norms fit."""
    wide, d, n = widened(x), widened(d), widened(n)
    e, of_noise = eps(wide, d, s), squares(n)
    of_score, least = squares(e), TINY * of_noise
    step = 2 * shrink * snr**2 * of_noise / (of_score + least)
    return moved(wide, e, s, (of_score > least) * step, n).to(x.dtype)


@sampler(
    "annealed_langevin",
    order=1,
    keeps_marginals=False,
    nfe=lambda steps, final, o: o["per_level"] * (steps + (final != "zero")) + (final == "zero"),
    paper="Song & Ermon 2019 (NCSN), algorithm 1; 2020 (NCSN++, v2) for the defaults",
    noise="white",
    ode=None,
    presets={"NCSN": {"per_level": 100, "step_size": 0.2}},
)
def annealed_langevin(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    per_level: Annotated[int, Option("Langevin steps at each noise level", 1, 10_000)] = 5,
    step_size: Annotated[
        float, Option("a step in units of sigma^2: the paper's epsilon / sigma_min^2", 0, 2)
    ] = 0.062,
) -> Coroutine:
    """x <- x + (step_size / 2) (D - x) + sigma sqrt(step_size) n, at every sigma of the grid but 0,
    where a last D ends it (Jolicoeur-Martineau et al. 2021). It is of order 1 in nothing: it does
    not solve an ODE or a reverse SDE, but draws from one level after the other."""
    levels = [s for s in sigmas if s > 0]
    last = len(sigmas) - 2
    for i, s in enumerate(levels):
        for draw in range(per_level):
            d = yield Ask(x, s, step=min(i, last))
            x = moved(x, eps(x, d, s), s, step_size / 2, noise(s, s, draw))
    return x if sigmas[-1] else (yield Ask(x, levels[-1], step=last))
