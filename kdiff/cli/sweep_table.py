"""What `kdiff sweep` prints of its cells: before they are computed, and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kdiff.eval.sweep import Cell

Lines = Sequence[Mapping[str, Any] | None]


def describe(cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    """The cells, those to be computed marked, and what they cost."""
    keys = {cell.key for cell in todo}
    rows = [f"{'+' if c.key in keys else ' '} {c.key}  {c.model.name}, {c}" for c in cells]
    nfe = sum(cell.nfe or 0 for cell in todo)
    images = len(cells[0].seeds)
    total = (
        f"{len(todo)} of {len(cells)} cells to compute (+): NFE {nfe}, "
        f"for {images} images each {nfe * images:,} evaluations before sharing"
    )
    adaptive = sum(cell.nfe is None for cell in todo)
    if adaptive:
        total += f", and what {adaptive} adaptive cells take, which only their runs will tell"
    return "\n".join([*rows, total])


def table(cells: Sequence[Cell], lines: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each set of images, a column for each metric; seconds if there is none."""
    found = [lines.get(cell.key) for cell in cells]
    names = list(dict.fromkeys(name for line in found if line for name in line["metrics"]))
    names = names or ["seconds"]
    heads: dict[str, Callable[[Cell, Lines], str]] = {
        "model": lambda cell, _: cell.model.name,
        "seeds": lambda cell, _: f"from {cell.seeds.start}",
        "sampler": lambda cell, _: cell.row,
        "schedule": lambda cell, _: cell.plan.schedule,
        "steps": lambda cell, _: str(cell.plan.steps),
        "NFE": nfe_text,
    }
    for name in ("model", "seeds"):
        if len({heads[name](cell, ()) for cell in cells}) == 1:
            del heads[name]
    rows = []
    for _, of_images in groupby(cells, lambda cell: cell.images):
        same = list(of_images)
        own = [lines.get(cell.key) for cell in same]
        row = [text(same[0], own) for text in heads.values()]
        rows.append([*row, *(shown(own, name) for name in names)])
    rows.insert(0, [*heads, *names])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = list(heads).index("steps")
    return "\n".join("  ".join(aligned(row, widths, words)) for row in rows)


def nfe_text(cell: Cell, lines: Lines) -> str:
    """Of an adaptive sampler what its run took: the mean over images."""
    if cell.nfe is not None:
        return str(cell.nfe)
    taken = next((line["nfe"] for line in lines if line and line.get("nfe")), None)
    return "" if taken is None else f"{taken['mean']:.1f}"


def aligned(row: Sequence[str], widths: Sequence[int], words: int) -> list[str]:
    """The first so many, which are words, on the left of their columns, numbers on the right."""
    cells = zip(row, widths, strict=True)
    return [f"{text:{'<' if i < words else '>'}{width}}" for i, (text, width) in enumerate(cells)]


def shown(same: Lines, name: str) -> str:
    """The figure, wherever it is among the lines of the same images."""
    for line in same:
        if line is not None and name in line["metrics"]:
            return f"{line['metrics'][name]['value']:.4g}"
    return "failed" if any(line and line["status"] == "failed" for line in same) else ""
