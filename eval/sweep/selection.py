"""Which cells a call computes, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kdiff.eval.sweep.cell import Cell
from kdiff.eval.sweep.cell_line import is_finished
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.files import to_json


def of_shard(cells: Sequence[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """The cells of shard (i, n), each with all others of its images, in the order in which to
    compute them: model by model, and within these guidance by guidance; cells of the same images,
    and cells on one grid, which share most, side by side."""

    def place(cell: Cell) -> tuple[Any, ...]:
        chosen = cell.plan
        return (
            *(cell.model.name, list(map(str, cell.model.guides)), cell.seeds.start),
            *(chosen.steps, chosen.schedule),
            *(to_json(chosen.record(), indent=None), cell.images, cell.key),
        )

    i, n = shard or (1, 1)
    ordered = sorted(cells, key=place)
    own = set(list(dict.fromkeys(cell.images for cell in ordered))[i - 1 :: n])
    return [cell for cell in ordered if cell.images in own]


def outstanding(
    cells: Sequence[Cell],
    folder: SweepFolder,
    retry: bool = False,
    warn: Callable[[str], None] | None = None,
) -> list[Cell]:
    """Those that have no line in the folder yet; with `retry` also those that failed. `warn` gets a
    text for each line in the folder that does not describe a cell."""
    lines = folder.lines(warn)
    failed = {k for k, line in lines.items() if line["status"] == "failed" and not retry}
    settled = failed | {k for k, line in lines.items() if is_finished(line)}
    return [cell for cell in cells if cell.key not in settled]
