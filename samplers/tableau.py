"""What a sampler computes, exactly: its coroutine run on symbols instead of tensors.

The symbols are `x_T` (the start), `D1, D2, ..` (the answers to its asks), `n1, n2, ..` (the
noises it draws) and `mean` (of the data, of which `samplers/first.py` makes the first answer). A
linear sampler's asks, and its result, are rows of numbers in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdiff.samplers.outline import Draw, walk_through
from kdiff.samplers.registry import Sampler

START, MEAN = "x_T", "mean"


@dataclass(frozen=True)
class Linear:
    """A linear combination of symbols: `terms[symbol]` is the coefficient."""

    terms: Mapping[str, float]

    def __add__(self, other: Linear) -> Linear:
        terms = dict(self.terms)
        for symbol, c in other.terms.items():
            terms[symbol] = terms.get(symbol, 0.0) + c
        return Linear(terms)

    def __mul__(self, factor: float) -> Linear:
        return Linear({symbol: factor * c for symbol, c in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Linear:
        return (1 / divisor) * self

    def __neg__(self) -> Linear:
        return -1.0 * self

    def __sub__(self, other: Linear) -> Linear:
        return self + -other


@dataclass(frozen=True)
class Row:
    """One ask: D at noise level `sigma` of the combination `x`, in step `step` (from 0)."""

    step: int
    sigma: float
    x: Linear


@dataclass(frozen=True)
class Tableau:
    """All asks in order, the result as a combination, and each noise drawn."""

    asks: Sequence[Row]
    result: Linear
    draws: Sequence[Draw]

    @property
    def noises(self) -> list[tuple[float, float]]:
        """The interval of each noise."""
        return [(draw.s, draw.t) for draw in self.draws]

    @property
    def nfe(self) -> int:
        return len(self.asks)


def trace(
    sampler: Sampler, sigmas: Sequence[float], options: Mapping[str, Any] | None = None
) -> Tableau:
    """The tableau of `sampler` on the decreasing grid `sigmas`. ValueError if it is not linear."""
    if not sampler.linear:
        raise ValueError(f"{sampler.name} is not linear in what it is given: it has no tableau")
    asks, result, draws = walk_through(
        sampler,
        sigmas,
        options,
        x=Linear({START: 1.0}),
        answer=lambda i, x: Linear({f"D{i}": 1.0}),
        noise=lambda i: Linear({f"n{i}": 1.0}),
    )
    return Tableau([Row(step, ask.sigma, ask.x) for step, ask in asks], result, draws)
