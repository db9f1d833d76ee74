"""What a sampler computes, exactly: its coroutine run on symbols instead of tensors.

The symbols are `x_T` (the start), `D1, D2, ..` (the answers to its asks) and `n1, n2, ..` (the
noises it draws). Every sampler is linear in them, so each ask, and the result, is a row of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdiff.samplers.registry import Sampler


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
    """All asks in order, the result as a combination, and the interval of each noise drawn."""

    asks: Sequence[Row]
    result: Linear
    noises: Sequence[tuple[float, float]]

    @property
    def nfe(self) -> int:
        return len(self.asks)


def trace(
    sampler: Sampler, sigmas: Sequence[float], options: Mapping[str, Any] | None = None
) -> Tableau:
    """The tableau of `sampler` on the decreasing grid `sigmas`."""
    intervals: list[tuple[float, float]] = []

    def noise(s: float, t: float) -> Linear:
        intervals.append((s, t))
        return Linear({f"n{len(intervals)}": 1.0})

    final = "zero" if sigmas[-1] == 0 else "sigma_min"
    calls = sampler.calls_per_step(len(sigmas) - 1, final)
    steps = [i for i, n in enumerate(calls) for _ in range(n)]
    coroutine = sampler.start(Linear({"x_T": 1.0}), sigmas, noise, options)
    rows: list[Row] = []
    answer = None
    while True:
        try:
            x, sigma = coroutine.send(answer)
        except StopIteration as stop:
            return Tableau(rows, stop.value, intervals)
        rows.append(Row(steps[len(rows)], sigma, x))
        answer = Linear({f"D{len(rows)}": 1.0})
