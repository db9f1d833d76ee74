"""What a process has of a cell so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from kdiff.eval.evaluation import Collector
from kdiff.eval.images.from_model import three_channels
from kdiff.eval.sweep.cell import Cell
from kdiff.eval.sweep.partial_cells import Portion
from kdiff.images import to_uint8
from kdiff.lockstep import Outcome

Decode = Callable[[torch.Tensor], torch.Tensor]

PICTURES, CONVERGED = 16, 64  # how many of the first seeds are shown, and compared with the ODE


def collector(cell: Cell) -> Collector:
    """What looks at the cell's images."""
    assert cell.network is not None
    return Collector(cell.judged, len(cell.seeds), cell.network, cell.reference)


@dataclass
class Tally:
    """The results of some of a cell's batches. The tallies of two processes add up.

    `samples`: the first ones, by number; `evaluations`: of each sample, in any order, if the
    sampler is adaptive; `error`: what ended the cell.
    """

    collector: Collector | None
    adaptive: bool = False
    samples: dict[int, np.ndarray] = field(default_factory=dict)
    evaluations: list[int] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, cell: Cell) -> Tally:
        return cls(collector(cell) if cell.judged else None, adaptive=cell.nfe is None)

    def update(self, outcome: Outcome, indices: Sequence[int], decode: Decode) -> Portion | None:
        """Add a batch, and return what it adds. What goes wrong is kept, and ends the cell."""
        if outcome.x is None:
            self.error = self.error or one_line(outcome.error)
        if self.error is not None or outcome.x is None:
            return None
        few = sum(i < max(PICTURES, CONVERGED) for i in indices)
        try:
            features = None
            if self.collector is not None:
                features = self.collector.look(three_channels(to_uint8(decode(outcome.x))))
            evaluations = np.array(outcome.evaluations) if self.adaptive else None
            samples = outcome.x[:few].cpu().numpy().copy()
            portion = Portion(features, samples, outcome.seconds, evaluations)
            self.add(portion, indices)
        except Exception as error:  # the sweep goes on, whatever is wrong with one cell
            self.error = one_line(error)
            return None
        return portion

    def add(self, portion: Portion, indices: Sequence[int]) -> None:
        """Add what `update` returned."""
        self.seconds += portion.seconds
        self.samples |= dict(zip(indices, portion.samples, strict=False))  # the first of them
        if portion.evaluations is not None:
            self.evaluations += portion.evaluations.tolist()
        if self.collector is not None and portion.features is not None:
            self.collector.add(portion.features, indices)

    def __add__(self, other: Tally) -> Tally:
        error = self.error or other.error
        both = self.collector
        if error is None and both is not None and other.collector is not None:
            both = both + other.collector
        return Tally(
            both,
            self.adaptive,
            self.samples | other.samples,
            self.evaluations + other.evaluations,
            error,
            self.seconds + other.seconds,
        )

    def first(self, n: int) -> np.ndarray:
        """The samples 0 to n - 1, or all if there are fewer: `[n, *shape]`."""
        return np.stack([self.samples[i] for i in sorted(self.samples)[:n]])


def one_line(error: Exception | None) -> str:
    """An error's first line, with its kind unless it is one of kdiff's own."""
    text = (str(error).splitlines() or [""])[0]
    own = isinstance(error, (ArithmeticError, ValueError)) and text
    return text if own else f"{type(error).__name__}: {text}".removesuffix(": ")
