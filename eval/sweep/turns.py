"""Whose turn it is with which cells of a sweep, when several processes share its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from kdiff.eval.ranks import ranks, share
from kdiff.eval.sweep import claims as claiming
from kdiff.eval.sweep.cell import Cell
from kdiff.eval.sweep.cell_line import is_finished
from kdiff.eval.sweep.claims import Claims
from kdiff.eval.sweep.folder import SweepFolder

TOGETHER = 8  # cells in lockstep: each holds its own state and statistics
Lines = Mapping[str, Mapping[str, Any]]


class Turn(NamedTuple):
    """Cells to compute now, if any; and lines that other processes have written in the meantime, of
    cells that were to be computed here."""

    cells: Sequence[Cell]
    others: Sequence[Mapping[str, Any]]


def turns(
    cells: Sequence[Cell], folder: SweepFolder, claims: Claims, tell: Callable[[str], None]
) -> Iterator[Turn]:
    """Turns until each of the cells has a new line in the folder, by this process or another. Cells
    that another process computes are waited for, which `tell` is told, and taken over if it ends.
    Under torchrun the first process decides for all."""
    by_key = {cell.key: cell for cell in cells}
    decided = _decided(cells, folder, claims, tell) if ranks()[0] == 0 else iter(())
    while True:
        turn = next(decided, None)
        keys = share(None if turn is None else [cell.key for cell in turn.cells])
        if keys is None:
            return
        yield turn or Turn([by_key[key] for key in keys], [])


def _decided(
    cells: Sequence[Cell], folder: SweepFolder, claims: Claims, tell: Callable[[str], None]
) -> Iterator[Turn]:
    before, waiting = folder.lines(), False
    pending, computed = list(cells), set[str]()
    while pending:
        idle = True
        for group in groups(pending):
            taken = [images for images in _images(group) if claims.take(images)]
            finished = _finished(pending, before, folder)  # some may be, since the last look
            mine = [c for c in group if c.images in taken and c.key not in finished]
            if mine:
                yield Turn(mine, [])
                computed |= {cell.key for cell in mine if claims.holds(cell.images)}
                idle = False
            for images in taken:
                claims.release(images)
        finished = _finished(pending, before, folder)
        pending = [cell for cell in pending if cell.key not in finished.keys() | computed]
        if pending and idle:
            if not waiting:
                tell(_waiting(pending, claims))
            waiting = True
            time.sleep(claiming.POLL)
        yield Turn([], [finished[key] for key in finished.keys() - computed])


def _finished(cells: Sequence[Cell], before: Lines, folder: SweepFolder) -> Lines:
    """The lines of cells that have one. Lines that were there `before`, such as failures, count
    only if they are finished."""
    lines = folder.lines()
    there = {cell.key: lines[cell.key] for cell in cells if cell.key in lines}
    return {k: v for k, v in there.items() if is_finished(v) or str(v) != str(before.get(k))}


def _images(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.images for cell in cells))


def _waiting(cells: Sequence[Cell], claims: Claims) -> str:
    who = ", ".join(dict.fromkeys(claims.holder(images) for images in _images(cells)))
    return f"waiting for {len(cells)} cells that are being computed by {who}"


def groups(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Up to 8 cells that lockstep can run at once, in their order: of one guided model and the same
    seeds. Cells of the same images stay together."""

    def alike(cell: Cell) -> tuple[Any, ...]:
        return cell.model, cell.seeds, cell.negative, cell.dtype, cell.deterministic

    for _, run_of_cells in groupby(cells, alike):
        group: list[Cell] = []
        for _, of_images in groupby(run_of_cells, lambda cell: cell.images):
            same = list(of_images)
            if group and len(group) + len(same) > TOGETHER:
                yield group
                group = []
            group += same
        yield group
