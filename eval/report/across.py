"""What the columns of a table stand for, and the x axis of its curves: NFE, or an option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol

from kdiff.eval.report.cells import Result, Sweep
from kdiff.eval.sweep.cell_line import MODIFICATIONS
from kdiff.names import normalise, unknown_name

WHERE = (*MODIFICATIONS, "options")
LARGEST = 1e100  # what still has a place on an axis


class Across(Protocol):
    """`name` is what titles call it, `word` what headings do. `best_of`: whether figures compete
    within their column, or their row."""

    @property
    def name(self) -> str: ...
    @property
    def word(self) -> str: ...
    @property
    def best_of(self) -> str: ...
    def place(self, result: Result) -> float | None:
        """The result's column; None if it has none."""

    def rest(self, cell: Mapping[str, Any]) -> Mapping[str, Any]:
        """The cell without what its column says: what its row is called after."""

    def subject(self, metric: str) -> str:
        """What titles begin with."""

    def heading(self, column: float, results: Sequence[Result]) -> str:
        """Of the column that has these results."""

    def spelt(self, result: Result, column: float) -> str:
        """The column of one result, where it stands alone."""

    def remark(self, result: Result, column: float) -> str:
        """What to say beside its figure, since its column does not say it; mostly nothing."""


class Evaluations:
    """Columns are numbers of evaluations of the network for each image."""

    name, word, best_of = "NFE", "NFE", "column"

    def place(self, result: Result) -> float | None:
        return None if result.nfe is None else result.column

    def rest(self, cell: Mapping[str, Any]) -> Mapping[str, Any]:
        return {key: value for key, value in cell.items() if key != "steps"}

    def subject(self, metric: str) -> str:
        return metric

    def heading(self, column: float, results: Sequence[Result]) -> str:
        """`NFE 10`, or `NFE ≤ 10` if some have fewer."""
        exact = all(result.nfe == column for result in results)
        return f"NFE {column}" if exact else f"NFE ≤ {column}"

    def spelt(self, result: Result, column: float) -> str:
        return f"NFE {column}"

    def remark(self, result: Result, column: float) -> str:
        return f" (NFE {result.nfe_text})" if result.nfe != column else ""


NFE: Across = Evaluations()


class Setting(NamedTuple):
    """An option that is a number, in one cell; `owner` is the guidance, edit or sampler."""

    owner: str
    key: str
    value: float

    @property
    def name(self) -> str:
        return f"{self.owner}:{self.key}"


@dataclass(frozen=True)
class OptionValues:
    """Columns are the values of one option, such as `cfg:scale`; or of the options of one name that
    several guidances (edits, samplers) have, of which each cell has one."""

    key: str
    owners: Sequence[str]
    best_of = "row"

    @property
    def name(self) -> str:
        return f"{self.owners[0]}:{self.key}" if len(self.owners) == 1 else self.key

    @property
    def word(self) -> str:
        return self.key

    def _own(self, owner: str, key: str) -> bool:
        return key == self.key and owner in self.owners

    def settings(self, cell: Mapping[str, Any]) -> list[Setting]:
        return [one for one in settings(cell) if self._own(one.owner, one.key)]

    def place(self, result: Result) -> float | None:
        found = self.settings(result.cell)
        return found[0].value if len(found) == 1 else None

    def rest(self, cell: Mapping[str, Any]) -> Mapping[str, Any]:
        def others(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in options.items() if not self._own(owner, key)}

        parts = {
            key: [{**one, "options": others(one["name"], one["options"])} for one in cell[key]]
            for key in MODIFICATIONS
            if cell.get(key)
        }
        return {**cell, "options": others(cell["sampler"], cell.get("options") or {}), **parts}

    def subject(self, metric: str) -> str:
        return f"{metric} by {self.name}"

    def heading(self, column: float, results: Sequence[Result]) -> str:
        return f"{self.key} {column:.10g}"

    def spelt(self, result: Result, column: float) -> str:
        return f"{self.key} {column:.10g}, NFE {result.nfe_text}"

    def remark(self, result: Result, column: float) -> str:
        return ""


def settings(cell: Mapping[str, Any], where: Sequence[str] = WHERE) -> Iterator[Setting]:
    """All options of a cell that are numbers: of its guidance, its edits and its sampler."""
    for part in where:
        found = cell.get(part) or ()
        modified = found if part in MODIFICATIONS else [{"name": cell["sampler"], "options": found}]
        for one in modified:
            for key, value in dict(one["options"]).items():
                if type(value) in (int, float) and abs(value) <= LARGEST:
                    yield Setting(one["name"], key, float(value))


def named(sweep: Sweep, name: str) -> Across:
    """`NFE`, `cfg:scale`, or `scale`, of whatever has an option of that name.

    ValueError if nothing in the sweep has it, or a cell has several.
    """
    if normalise(name) == normalise(NFE.name):
        return NFE
    every = _owners(sweep, WHERE)
    *owner, key = name.rsplit(":", 1)
    for known, owners in every.items():
        wanted = [one for one in owners if not owner or normalise(one) == normalise(owner[0])]
        if known.lower() == key.strip().lower() and wanted:
            across = OptionValues(known, wanted)
            if clash := _clash(sweep, across):
                raise ValueError(clash)
            return across
    names = [f"{one}:{known}" for known, owners in every.items() for one in owners]
    raise ValueError(unknown_name("x axis", name, [NFE.name, *names], every))


def of_guidance(sweep: Sweep) -> Iterator[OptionValues]:
    """The options of guidance that have more than one value in the sweep: those of one name
    together, but each for itself where a cell has several."""
    for key, owners in _owners(sweep, ("guidance",)).items():
        together = OptionValues(key, owners)
        apart = [OptionValues(key, [owner]) for owner in owners]
        for across in apart if _clash(sweep, together) else [together]:
            values = {across.place(result) for result in sweep.results} - {None}
            if len(values) > 1 and not _clash(sweep, across):
                yield across


def _owners(sweep: Sweep, where: Sequence[str]) -> dict[str, list[str]]:
    """Of each option's name whose it is, as the sweep comes to them."""
    found: dict[str, list[str]] = {}
    for one in chain.from_iterable(settings(result.cell, where) for result in sweep.results):
        owners = found.setdefault(one.key, [])
        if one.owner not in owners:
            owners.append(one.owner)
    return found


def _clash(sweep: Sweep, across: OptionValues) -> str:
    """In words, which cell has several such options; nothing if none has."""
    for result in sweep.results:
        names = [one.name for one in across.settings(result.cell)]
        if len(set(names)) > 1:
            return f"a cell has several options named {across.key}: say {' or '.join(names)}"
        if len(names) > 1:
            return f"a cell has {names[0]} {len(names)} times, and no single value for an axis"
    return ""
