"""The progress bar of `kdiff sweep`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from kdiff.driver import State
from kdiff.eval.ranks import ranks
from kdiff.eval.sweep import Cell
from kdiff.eval.sweep import converged_solution as converged


class Progress:
    """A bar that shows cells and images/s; over all evaluations, which remaining time goes by,
    unless a sampler is adaptive: then their total is not known."""

    def __init__(self, cells: Sequence[Cell], bar: tqdm):
        self.cells, self.bar = {cell.key: cell for cell in cells}, bar
        self.counted: dict[str, float] = dict.fromkeys(self.cells, 0)
        self.images, self.done, self.began = 0.0, 0, time.monotonic()
        known = all(cell.nfe is not None for cell in cells)
        bar.bar_format = "{elapsed}{postfix}"
        if known:
            bar.bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        bar.total = sum(map(self.cost, cells)) if known else None
        bar.reset()
        self.show()

    @staticmethod
    def cost(cell: Cell) -> int:
        """Evaluations of the network, counted image by image: this process's share. 0 if only the
        run will tell."""
        return (cell.nfe or 0) * len(cell.seeds) // ranks()[1]

    def watch(self, cell: Cell | None, state: State) -> None:
        if cell is None:
            text = f"converged solution, step {state.step} of {converged.STEPS}"
            self.bar.set_postfix_str(text)
            return
        last = state.step == cell.plan.steps  # which is no answer
        if cell.nfe is None or cell.plan.nfe is None:
            self.images += len(state.x) * last
        elif not last:
            self.count(cell, len(state.x) * cell.nfe / cell.plan.nfe)
            self.images += len(state.x) / cell.plan.nfe
        self.show()

    def resumed(self, cell: Cell, images: int) -> None:
        self.count(cell, images * (cell.nfe or 0))

    def finished(self, line: Mapping[str, Any]) -> None:
        cell = self.cells[line["key"]]
        self.count(cell, self.cost(cell) - self.counted[cell.key])
        self.done += 1
        if line["status"] == "failed":
            self.bar.write(f"failed: {cell}: {line['error']}")
        self.show()

    def count(self, cell: Cell, evaluations: float) -> None:
        self.counted[cell.key] += evaluations
        self.bar.update(evaluations)

    def show(self) -> None:
        rate = self.images / max(time.monotonic() - self.began, 1e-9)
        text = f"{self.done} of {len(self.cells)} cells, {rate:.1f} images/s"
        self.bar.set_postfix_str(text, refresh=False)
