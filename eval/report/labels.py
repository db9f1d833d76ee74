"""What the rows of tables are called, and in which order they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdiff.editing import EDITS
from kdiff.eval.report import across as columns
from kdiff.eval.report.across import NFE, Across
from kdiff.eval.report.cells import Result, modifications
from kdiff.eval.sweep.cell_line import MODIFICATIONS
from kdiff.guidance import GUIDANCE
from kdiff.modifications import Modification
from kdiff.samplers import REGISTRY

# These belong to the table or the column, or follow from sampler, schedule and steps.
NOT_THE_ROWS = (
    *("model", "features", "reference", "metrics", "seeds"),
    *("sampler", "options", "nfe", "asks", "sigmas", "tableau"),
)
Modified = Callable[[Mapping[str, Any], str], list[str]]


def shortened(cell: Mapping[str, Any], key: str) -> list[str]:
    """As `modifications`, of the options only the first, and those that are not the default."""
    registry: Mapping[str, Any] = GUIDANCE if key == "guidance" else EDITS
    texts = []
    for one in cell.get(key) or ():
        known = registry[one["name"]].options if one["name"] in registry else {}
        first = next(iter(known), None)
        shown = {
            name: value
            for name, value in one["options"].items()
            if name not in known or name == first or str(value) != str(known[name].default)
        }
        texts.append(str(Modification(one["name"], shown)))
    return texts


def settings(cell: Mapping[str, Any], modified: Modified = modifications) -> dict[str, str]:
    """A row's settings beside its sampler, in words: options that are not the default, the rest
    as it is."""
    sampler = REGISTRY.get(cell["sampler"])
    defaults = sampler.with_defaults() if sampler else {}
    options = (cell.get("options") or {}).items()
    shown = {  # as text: JSON has no infinity, and has it as "inf"
        key: f"{key}={value}" for key, value in options if str(defaults.get(key)) != str(value)
    }
    for key, value in cell.items():
        if key in MODIFICATIONS:
            if value:
                shown[key] = ", ".join(modified(cell, key))
        elif key == "first":
            shown[key] = f"first={value.get('name')}"
        elif key == "steps":
            shown[key] = f"{value} steps"
        elif key not in NOT_THE_ROWS:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            shown[key] = text if key in ("schedule", "dtype") else f"{key}={text}"
    return shown


def labelled(
    results: Sequence[Result], subject: Sequence[str], across: Across = NFE
) -> list[tuple[str, Result]]:
    """Each result under its row's name: the sampler, its options where not default, guidance and
    edits, and what else is not the same all over the sweep; where that does not tell two apart,
    their noise levels, or their numbers."""
    described = [settings(across.rest(result.cell), shortened) for result in results]
    keys = dict.fromkeys(key for one in described for key in one)
    differing = {key for key in keys if len({one.get(key) for one in described}) > 1}
    labels = []
    for result, one in zip(results, described, strict=True):
        always = {*(result.cell.get("options") or {}), *MODIFICATIONS}
        shown = [one[key] for key in one if key in always | differing]
        sampler = str(result.cell["sampler"])
        labels.append(f"{sampler} ({', '.join(shown)})" if shown else sampler)
    for tell_apart in (_noise_levels, lambda _, nth: f"[{nth}]"):
        places = [
            (label, comparable(r, subject), across.place(r))
            for label, r in zip(labels, results, strict=True)
        ]
        shared = {place[0] for place in places if places.count(place) > 1}
        labels = [
            f"{label} {tell_apart(r, 1 + places[:i].count(places[i]))}"
            if label in shared
            else label
            for i, (label, r) in enumerate(zip(labels, results, strict=True))
        ]
    return list(zip(labels, results, strict=True))


def order(rows: Sequence[tuple[str, Result]], across: Across = NFE) -> dict[str, int]:
    """Each row's place: as `kdiff list` has the samplers, since cells finish in any order; rows of
    one sampler by their guidance, then their steps, then as they come."""
    listed = {name: i for i, name in enumerate(REGISTRY)}

    def place(result: Result) -> tuple[Any, ...]:
        cell = across.rest(result.cell)
        guidance = [one["name"] for one in cell.get("guidance") or ()]
        numbers = list(columns.settings(cell, ("guidance",)))
        steps = cell.get("steps") if isinstance(cell.get("steps"), int) else 0
        return listed.get(cell["sampler"], len(listed)), guidance, numbers, steps

    places = {label: place(result) for label, result in rows}
    return {label: i for i, label in enumerate(sorted(places, key=places.__getitem__))}


def comparable(result: Result, subject: Sequence[str]) -> str:
    """What the figures of one table have in common, `subject` besides model and N."""
    cell = result.cell
    of = [cell.get(key) for key in ("model", *subject)]
    return json.dumps([of, cell["seeds"]["n"]], sort_keys=True)


def _noise_levels(result: Result, _: int) -> str:
    levels = [sigma for sigma in result.cell.get("sigmas") or [] if sigma]
    return f"[{levels[0]:.4g} to {levels[-1]:.4g}]" if levels else ""
