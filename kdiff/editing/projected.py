"""Adaptive projected guidance (Sadat et al. 2024), with its momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.editing import OfGrid, Start, edit
from kdiff.guidance.asking import without
from kdiff.guidance.classifier_free import Scale
from kdiff.guidance.projected import PAPER, Eta, Norm, projected
from kdiff.options import Option
from kdiff.samplers.contract import Ask, Coroutine, Noise

if TYPE_CHECKING:
    from torch import Tensor

Momentum = Annotated[float, Option("beta: how much of the past directions", -1, 1)]


def levels(inner: OfGrid, grid: Sequence[float], options: Mapping[str, Any]) -> list[float]:
    """Each twice, for c and u."""
    times = 1 if options["scale"] == 1 else 2
    return [level for level in inner(grid) for _ in range(times)]


@edit("apg", paper=PAPER, levels=levels, like="apg")
def apg(
    start: Start,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    scale: Scale = 1.5,
    norm: Norm = 2.5,
    eta: Eta = 0.0,
    momentum: Momentum = -0.75,
) -> Coroutine:
    """The guidance `apg` of the running sum d <- c - u + beta d, in the place of d = c - u.

    beta is the `momentum`; -0.75 is ACE-Step's, and 0 is the guidance itself. Each sample has a sum
    of its own, to which each of its answers adds: also the later stages of a step, and steps that
    an adaptive sampler takes back. c and u are two questions to the model.
    """
    walk, past = start(x, sigmas), Past(momentum)
    while walk.asks:
        asks = list(walk.asks)
        if scale == 1:
            walk.answer(*(yield asks))
            continue
        both = yield [one for ask in asks for one in (ask, ask._replace(cond=_without(ask.cond)))]
        for ask, c, u in zip(asks, both[::2], both[1::2], strict=True):
            walk.answer(projected(c, past.added(ask, c - u), scale, norm, eta))
    return walk.result


class Past:
    """The running sum of each sample."""

    def __init__(self, momentum: float):
        self.momentum = momentum
        self._sums: dict[int, Tensor] = {}

    def added(self, ask: Ask, d: Tensor) -> Tensor:
        """The sums of these samples, after `d`."""
        import torch

        if self.momentum == 0:
            return d
        rows = range(len(d)) if ask.rows is None else ask.rows
        return torch.stack(list(self._each(rows, d)))

    def _each(self, rows: Sequence[int], d: Tensor) -> Iterator[Tensor]:
        for row, one in zip(map(int, rows), d, strict=True):
            known = self._sums.get(row)
            self._sums[row] = one if known is None else one + self.momentum * known
            yield self._sums[row]


def _without(cond: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What the ask says of conditions, and then without class or prompt."""
    if cond is None:
        return without
    return lambda run: without(cond(run) if callable(cond) else {**run, **cond})
