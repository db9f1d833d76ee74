"""A tableau as a sampler: each ask is the combination that its row says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdiff.samplers.contract import Ask, Coroutine, Noise
from kdiff.samplers.first import mean_like
from kdiff.samplers.registry import NoiseKind, Sampler
from kdiff.samplers.tableau import MEAN, START, Linear, Tableau


@dataclass(frozen=True)
class Replay:
    """x_i = sum_j c_ij y_j over what is known by then: the start x_T, the answers D1, D2 .., the
    noises n1, n2 .. and the data's mean."""

    tableau: Tableau
    sigmas: Sequence[float]
    mean: Any = 0.0

    def __call__(self, x: Any, sigmas: Sequence[float], noise: Noise | None = None) -> Coroutine:
        """Another grid is a ValueError."""
        if list(sigmas) != list(self.sigmas):
            raise ValueError("a tableau runs on its own grid only, which an edit has changed")
        return self._walk(x, noise)

    def _walk(self, x: Any, noise: Noise | None) -> Coroutine:
        known = {START: x, MEAN: mean_like(x, self.mean)}

        def combined(row: Linear) -> Any:
            for symbol in row.terms:
                if symbol not in known:  # a noise, drawn where it is needed first
                    one = self.tableau.draws[int(symbol[1:]) - 1]
                    known[symbol] = noise(one.s, one.t, one.draw, stream=one.stream)  # type: ignore[misc]
            first, *others = (c * known[symbol] for symbol, c in row.terms.items())
            return sum(others, first)

        for i, row in enumerate(self.tableau.asks, 1):
            known[f"D{i}"] = yield Ask(combined(row.x), row.sigma, step=row.step)
        return combined(self.tableau.result)


def replaying(
    name: str,
    tableau: Tableau,
    sigmas: Sequence[float],
    *,
    noise: NoiseKind | None = None,
    mean: Any = 0.0,
    paper: str = "",
) -> Sampler:
    """The sampler of a tableau on its grid `sigmas`, with noises of the kind `noise`. It claims no
    order."""
    return Sampler(
        name,
        Replay(tableau, tuple(sigmas), mean),
        _unclaimed,
        paper,
        count=partial(_asks, tableau.nfe),
        noise=noise,
        ode=None if noise else {},
    )


def needs_mean(tableau: Tableau) -> bool:
    """Whether a row has the data's mean in it."""
    rows = [*(ask.x for ask in tableau.asks), tableau.result]
    return any(row.terms.get(MEAN) for row in rows)


def _unclaimed(options: Mapping[str, Any]) -> None:
    return None


def _asks(number: int, *arguments: Any) -> int:
    return number
