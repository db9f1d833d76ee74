"""What a sampler will ask and draw on a grid, known before it runs: its coroutine, walked through
on zeros instead of tensors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kdiff.samplers.contract import Ask, Walk
from kdiff.samplers.registry import Final, Sampler

MOST_ASKS = 10_000_000


class Draw(NamedTuple):
    """The noise for the interval from noise level `s` to `t`, as in `contract.Noise`."""

    s: float
    t: float
    draw: int = 0
    stream: str = ""


class Outline(NamedTuple):
    """`levels`: the sigma of each ask, in order; `steps`: the interval of the grid, from 0, that
    each belongs to; `draws`: the noises, in the order in which they are drawn."""

    levels: Sequence[float]
    steps: Sequence[int]
    draws: Sequence[Draw]


def outline(
    sampler: Sampler, sigmas: Sequence[float], options: Mapping[str, Any] | None = None
) -> Outline | None:
    """The outline of `sampler` on the grid `sigmas`; None if it is adaptive. TypeError
    if it is declared linear, but does not run on numbers."""
    if sampler.limit is not None:
        return None
    zero, answer = (0.0, _zero) if sampler.linear else _tensors()
    try:
        asks, _, draws = walk_through(
            sampler, sigmas, options, x=zero, answer=answer, noise=lambda i: zero, variance=zero
        )
    except (TypeError, AttributeError) as error:
        if not sampler.linear:
            raise
        raise TypeError(
            f"{sampler.name} does not run on plain numbers ({error}): declare linear=False if it "
            "does more than to add multiples of what it is given"
        ) from error
    return Outline([ask.sigma for _, ask in asks], [step for step, _ in asks], draws)


def _zero(i: int, x: Any) -> Any:
    return 0.0 * x


def _tensors() -> tuple[Any, Callable[[int, Any], Any]]:
    """For a sampler that may do anything that tensors can, also differentiate its answers."""
    import torch

    return torch.zeros(1, 1, dtype=torch.float64), torch.enable_grad()(_zero)


def walk_through(
    sampler: Sampler,
    sigmas: Sequence[float],
    options: Mapping[str, Any] | None,
    *,
    x: Any,
    answer: Callable[[int, Any], Any],
    noise: Callable[[int], Any],
    variance: Any = None,
) -> tuple[list[tuple[int, Ask]], Any, list[Draw]]:
    """All asks with their steps, the result, and the noises drawn, of a walk from `x` in which the
    i-th ask (from 1) gets `answer(i, its x)`, the i-th noise is `noise(i)`, and every learned
    variance is `variance`. ValueError if the sampler does not end, or wants one and there is none.
    """
    draws: list[Draw] = []

    def source(s: float, t: float, draw: int = 0, *, stream: str = "") -> Any:
        draws.append(Draw(s, t, draw, stream))
        return noise(len(draws))

    walk = Walk(sampler.start(x, sigmas, source, options))
    asks: list[Ask] = []
    while walk.ask is not None:
        if len(asks) == MOST_ASKS:
            raise ValueError(f"{sampler.name} does not end: it has asked {MOST_ASKS:,} times")
        asks.append(walk.ask)
        if walk.ask.variance is not None:
            if variance is None:
                raise ValueError(f"{sampler.name} has no tableau with a learned variance")
            walk.ask.variance.fill(variance)
        walk.answer(answer(len(asks), walk.ask.x))
    steps = _steps(sampler, sigmas, asks)
    return list(zip(steps, asks, strict=True)), walk.result, draws


def _steps(sampler: Sampler, sigmas: Sequence[float], asks: Sequence[Ask]) -> list[int]:
    """The step of each ask: what it says; or by the declared number of calls in each step; or, for
    samplers that have none, by its noise level."""
    final: Final = "zero" if sigmas[-1] == 0 else "sigma_min"
    calls = sampler.calls_per_step(len(sigmas) - 1, final)
    by_calls = [i for i, n in enumerate(calls) for _ in range(n)]
    if len(by_calls) != len(asks):
        by_calls = [step_of(sigmas, ask.sigma) for ask in asks]
    return [i if ask.step is None else ask.step for i, ask in zip(by_calls, asks, strict=True)]


def step_of(sigmas: Sequence[float], sigma: float) -> int:
    """The interval of the grid, from 0, that begins at `sigma` or has it inside."""
    sign = 1 if sigmas[0] < sigmas[-1] else -1
    begun = bisect_right(sigmas, sign * sigma, key=lambda s: sign * s)
    return min(max(begun - 1, 0), len(sigmas) - 2)
