"""From cells to lines: the loop of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdiff.conditions import chosen
from kdiff.counts import whole_number
from kdiff.driver import State
from kdiff.environment import environment
from kdiff.eval.images.from_model import every_class
from kdiff.eval.ranks import gather, ranks
from kdiff.eval.sweep.cell import Cell
from kdiff.eval.sweep.cell_line import is_finished
from kdiff.eval.sweep.claims import WRITING, Claims
from kdiff.eval.sweep.finishing import Finish
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.eval.sweep.models import Models
from kdiff.eval.sweep.partial_cells import Unfinished
from kdiff.eval.sweep.tally import Tally
from kdiff.eval.sweep.turns import turns
from kdiff.lockstep import Outcome, lockstep

Watch = Callable[[Cell | None, State], None]
Resumed = Callable[[Cell, int], None]


def run(
    cells: Sequence[Cell],
    folder: SweepFolder,
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    models: Models | None = None,
    callback: Watch | None = None,
    resumed: Resumed | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Compute the cells, groups of them in lockstep, and yield each one's line once it is written.
    Under torchrun the processes share each cell's batches, and only the first writes and yields.

    `models` has the models that are loaded already. `callback` gets each `State`, and its cell:
    None for a converged solution. A cell that fails gets a line that says so; OSError if the folder
    cannot be written to. What it has of cells under way is kept there, and a call with the same
    `batch` goes on from it: `resumed` gets the cell and the number of images of each batch that an
    earlier call computed.

    Other calls may compute the same cells in the folder at the same time: each takes others, waits
    for theirs, which it says by `tell`, yields their lines, and takes over what a dead one leaves.
    """
    batch = whole_number("batch", batch, 1)
    watch = callback or (lambda cell, state: None)
    resume = resumed or (lambda cell, images: None)
    loaded = models or Models()
    unfinished = Unfinished(folder.path, environment(device))
    unfinished.remove(key for key, line in folder.lines().items() if is_finished(line))
    with Claims(folder.path) as claims:
        finish = Finish(folder, batch, claims, lambda state: watch(None, state))
        sampling = Sampling(unfinished, batch, watch, resume)
        for turn in turns(cells, folder, claims, tell or (lambda text: None)):
            yield from turn.others
            if turn.cells:
                first = turn.cells[0]
                dtype = getattr(torch, first.dtype)
                told = loaded.told(first.model, len(first.seeds), device, dtype)
                model = loaded.on(device, first.model, dtype)
                for cell, line in lines(turn.cells, model, told, sampling, finish):
                    if claims.holds(cell.images):
                        with claims.hold(WRITING):
                            folder.append(line)
                        unfinished.remove([cell.key])
                        yield line
                del model  # before the next one is on the device
    unfinished.close()


def lines(
    group: Sequence[Cell],
    model: Any,
    told: Mapping[str, Any],
    sampling: Sampling,
    finish: Finish,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """The cells of one model and their lines, in the first process; nothing in others. `told` are
    conditions beside classes, with a row for each image."""
    for cell, part in zip(group, sampling(group, model, told), strict=True):
        tally = gather(part)
        if tally is not None:
            yield cell, finish(cell, tally, model, told)


@dataclass(frozen=True)
class Sampling:
    """Computes this process's share of a group of cells."""

    unfinished: Unfinished
    batch: int
    watch: Watch
    resume: Resumed

    def __call__(self, group: Sequence[Cell], model: Any, told: Mapping[str, Any]) -> list[Tally]:
        """Of each cell every world-th batch, unless the disk has it already."""
        tallies = [Tally.of(cell) for cell in group]
        seeds = group[0].seeds
        rank, world = ranks()
        for start in range(rank * self.batch, len(seeds), world * self.batch):
            indices = range(start, min(start + self.batch, len(seeds)))
            todo = []
            for cell, tally in zip(group, tallies, strict=True):
                portion = self.unfinished.load(cell.key, indices)
                if portion is not None:
                    tally.add(portion, indices)
                    self.resume(cell, len(indices))
                elif tally.error is None:
                    todo.append((cell, tally))
            cells = [cell for cell, _ in todo]
            outcomes = compute(cells, model, told, indices, self.watch) if todo else []
            for (cell, tally), outcome in zip(todo, outcomes, strict=True):
                portion = tally.update(outcome, indices, model.decode)
                if portion is not None:
                    self.unfinished.save(cell.key, indices, portion)
        return tallies


def compute(
    cells: Sequence[Cell],
    model: Any,
    told: Mapping[str, Any],
    indices: Sequence[int],
    watch: Watch,
) -> Sequence[Outcome]:
    """The images with these numbers, of each cell, as one batch."""
    seeds = cells[0].seeds
    labels, _ = every_class(model, len(seeds))
    (together,) = lockstep(
        model,
        [cell.plan for cell in cells],
        [seeds[i] for i in indices],
        batch=len(indices),
        deterministic=cells[0].deterministic,
        cond={
            "class_labels": labels and [labels[i] for i in indices],
            **cells[0].away(indices),
            **chosen(told, indices),
        },
        callback=lambda i, state: watch(cells[i], state),
    )
    return together.outcomes
