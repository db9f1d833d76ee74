"""What adaptive samplers share: each sample takes steps of its own, chosen by their errors, so that
no sample depends on which others are in its batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from kdiff.samplers.contract import Ask, Coroutine, Walk
from kdiff.samplers.registry import Option

MOST = 2000
Limit = Annotated[int, Option("the most evaluations of a sample", 1)]
# slope(x, u): the derivative at u, or what else steps begin with; a coroutine, as it asks for D.
Slope = Callable[[Any, float], Coroutine]
# trial(x, u, v, slope at u): the step's end, its error (1 is tolerated), and the slope there, if
# it is known.
Trial = Callable[[Any, float, float, Any], Coroutine]


class VanishingStep(ArithmeticError):
    """No step is short enough for the tolerances."""


def vanishing(u: float) -> VanishingStep:
    return VanishingStep(
        f"no step is short enough at {u:g}: the model's output is not finite, or not continuous, "
        "or the tolerances are too small"
    )


class Control(Protocol):
    """Chooses the size of steps, `h`, which has the sign of their direction."""

    h: float

    def propose_step(self, error: float) -> bool:
        """Whether a step with that error is accepted; the next one will be `h`."""
        ...


def integrate(
    x: Any, u: float, end: float, control: Control, slope: Slope, trial: Trial, k: Any = None
) -> Coroutine:
    """From u to `end`, in steps that `control` accepts. `k` is the slope at u if that is known.
    VanishingStep if a step is too short to be told from none."""
    while u != end:
        if k is None:
            k = yield from slope(x, u)
        v = next_point(u, end, control)
        control.h = v - u
        x_v, error, k_v = yield from trial(x, u, v, k)
        if control.propose_step(error):
            x, u, k = x_v, v, k_v
    return x


def next_point(u: float, end: float, control: Control) -> float:
    """u + h, or `end` if that is not further away."""
    v = u + control.h
    least = 10 * abs(math.nextafter(u, end) - u)
    if not abs(control.h) > least:  # also if it is NaN
        raise vanishing(u)
    return end if abs(end - u) <= abs(control.h) * (1 + 1e-9) else v


def by_sample(one: Callable[[Any, int], Coroutine], x: Any) -> Coroutine:
    """`one(x_i, i)` for each sample i, `x_i` a batch of one, all under way at once: what they ask
    at one noise level is one ask."""
    import torch

    walks = [Walk(one(x[i : i + 1], i), graph=True) for i in range(len(x))]
    while any(walk.asks for walk in walks):
        asked = [(i, ask) for i, walk in enumerate(walks) for ask in walk.asks]
        levels: dict[float, list[int]] = {}
        for k, (_, ask) in enumerate(asked):
            levels.setdefault(ask.sigma, []).append(k)
        answers = yield [
            Ask(torch.cat([asked[k][1].x for k in ks]), sigma, rows=[asked[k][0] for k in ks])
            for sigma, ks in levels.items()
        ]
        found: dict[int, Any] = {}
        for ks, d in zip(levels.values(), answers, strict=True):
            found.update(zip(ks, d.split(1), strict=True))
        for k, (i, _) in enumerate(asked):
            walks[i].answer(found[k])
    return torch.cat([walk.result for walk in walks])


def to_the_end(sigmas: Sequence[float], solve: Callable[..., Coroutine], x: Any) -> Coroutine:
    """`solve(x, i, s, t)` for each sample i, from the first noise level s to the last one above 0,
    t; levels between do not count. A last step to 0 is Euler's: the denoised."""
    s, t = sigmas[0], sigmas[-1] or sigmas[-2]
    if s != t:
        x = yield from by_sample(lambda x_i, i: solve(x_i, i, s, t), x)
    return (yield x, t) if sigmas[-1] == 0 else x


def rms(x: Any) -> float:
    """sqrt(mean x^2), on the host; samplers branch on it."""
    return float(x.detach().square().mean().sqrt())
