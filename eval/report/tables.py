"""Tables: samplers and their settings by NFE, or by the values of an option."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kdiff.eval.report.across import NFE, Across
from kdiff.eval.report.cells import (
    JUDGES,
    WITHOUT_NETWORK,
    Figure,
    Result,
    Sweep,
    higher_is_better,
)
from kdiff.eval.report.digits import alike, digits, two_digits
from kdiff.eval.report.labels import comparable, labelled, order
from kdiff.eval.report.titles import about, about_columns, names

MISSING, FAILED = "—", "failed"


@dataclass(frozen=True)
class Row:
    """A sampler with its settings, and its results by their column; `index` is the same in every
    table of the sweep with these columns."""

    label: str
    index: int
    results: Mapping[float, Result]


@dataclass(frozen=True)
class Table:
    """One metric of one model at one N: figures that may be compared. `elsewhere`: how many of them
    are in no column."""

    metric: str
    model: str
    n: int
    title: str
    rows: Sequence[Row]
    across: Across = NFE
    elsewhere: int = 0

    @property
    def caption(self) -> str:
        """What a reader must know in order to use the figures."""
        cell = self.results[0].cell
        text = about(cell, self.metric, self.n, [figure for *_, figure in self.figures()])
        if self.across is not NFE:
            text += about_columns(self.across.name, self.results, self.elsewhere)
        if self.noise_floor is None:
            return text
        floor = two_digits(self.noise_floor)
        return f"{text} Noise floor: about {floor}, what perfect samples would get."

    @cached_property
    def columns(self) -> list[float]:
        return sorted({column for row in self.rows for column in row.results})

    @property
    def results(self) -> list[Result]:
        return [result for row in self.rows for result in row.results.values()]

    @property
    def noise_floor(self) -> float | None:
        """The figure that as many perfect samples would get, if a cell has it."""
        floors = (result.noise_floor.get(self.metric) for result in self.results)
        return next((floor for floor in floors if floor is not None), None)

    def figure(self, row: Row, column: float) -> Figure | None:
        result = row.results.get(column)
        return result.figure(self.metric, self.n) if result else None

    def figures(self) -> Iterator[tuple[Row, float, Figure]]:
        return ((row, column, figure) for row in self.rows for column, figure in self.of(row))

    def of(self, row: Row) -> Iterator[tuple[float, Figure]]:
        """The row's figures, by their columns."""
        for column in self.columns:
            if (figure := self.figure(row, column)) is not None:
                yield column, figure

    @cached_property
    def repeats(self) -> int:
        """Of the figure that has the most."""
        return max(figure.repeats for *_, figure in self.figures())

    def failed(self, row: Row, column: float) -> bool:
        """A cell without any figure, not only without this one."""
        result = row.results.get(column)
        return result is not None and not result.figures and bool(result.failures)

    def best(self, column: float) -> Figure | None:
        """The best figure of a column; None if it has fewer than two."""
        return self._best(self.figure(row, column) for row in self.rows)

    def _best(self, among: Iterable[Figure | None]) -> Figure | None:
        figures = [figure for figure in among if figure is not None]
        if len(figures) < 2:
            return None
        choose = max if higher_is_better(self.metric) else min
        return choose(figures, key=lambda figure: figure.value)

    def heading(self, column: float) -> str:
        results = [row.results[column] for row in self.rows if column in row.results]
        return self.across.heading(column, results)

    def place(self, row: Row, column: float) -> str:
        """Its column, as one reads of a single figure: `NFE 10`, `scale 1.5, NFE 8`."""
        return self.across.spelt(row.results[column], column)

    def text(self, row: Row, column: float) -> str:
        """`12.31 ± 0.21`; then its NFE if it is not the column's, and how many repeats where it has
        fewer than others."""
        figure = self.figure(row, column)
        if figure is None:
            return FAILED if self.failed(row, column) else MISSING
        value, error = digits(figure)
        less = self.across.remark(row.results[column], column)
        fewer = f" (of {figure.repeats})" if figure.repeats < self.repeats else ""
        return value + (f" ± {error}" if error else "") + less + fewer

    def is_best(self, row: Row, column: float) -> bool:
        """Whether it equals the best figure of its column, or of its row, as `across` has it, at
        the printed precision."""
        figure = self.figure(row, column)
        if self.across.best_of == "column":
            best = self.best(column)
        else:
            best = self._best(figure for _, figure in self.of(row))
        return figure is not None and best is not None and alike(figure, best)


def make_tables(sweep: Sweep, metrics: Iterable[str] = (), across: Across = NFE) -> list[Table]:
    """One table for each metric, model, network, reference and N: figures of different N, or
    against different references, are never in one table. Network and reference do not matter to
    the metrics `WITHOUT_NETWORK`. `metrics`: only these. `across`: what the columns are. A result
    that has no column, such as one by NFE whose adaptive sampler failed, is not in the tables."""
    wanted = list(metrics) or sweep.metrics
    kinds: list[tuple[Sequence[Result], Sequence[str]]]
    kinds = [(sweep.results, JUDGES), (sweep.unjudged, ())]
    named = [
        labelled([r for r in results if across.place(r) is not None], subject, across)
        for results, subject in kinds
    ]
    places = order([*named[0], *named[1]], across)
    found: list[tuple[Mapping[str, Any], Table]] = []
    for labels, (every, subject) in zip(named, kinds, strict=True):
        groups: dict[str, list[tuple[str, Result]]] = {}
        for label, result in labels:
            groups.setdefault(comparable(result, subject), []).append((label, result))
        for key, group in groups.items():
            results = [result for _, result in group]
            others = [r for r in every if r not in results and comparable(r, subject) == key]
            rows: dict[str, dict[float, Result]] = {}
            for label, result in group:
                column = across.place(result)
                assert column is not None
                rows.setdefault(label, {})[column] = result
            for metric, n in dict.fromkeys((f.metric, f.n) for r in results for f in r.figures):
                if metric not in wanted or (metric in WITHOUT_NETWORK) != (not subject):
                    continue
                laid = [
                    Row(label, places[label], cells)
                    for label, cells in sorted(rows.items(), key=lambda item: places[item[0]])
                    if any(not r.figures or r.figure(metric, n) for r in cells.values())
                ]
                of = {key: results[0].cell.get(key) for key in ("model", *subject)}
                elsewhere = sum(r.figure(metric, n) is not None for r in others)
                found.append((of, Table(metric, "", n, "", laid, across, elsewhere)))
    found.sort(key=lambda one: wanted.index(one[1].metric))
    return titled(found)


def titled(found: Sequence[tuple[Mapping[str, Any], Table]]) -> list[Table]:
    """The tables with their models' names and their titles; beside each, what its cells share."""
    tables = [table for _, table in found]
    named = names([(table.across.subject(table.metric), of) for of, table in found])
    titles = [f"{title}, N = {table.n:,}" for table, (_, title) in zip(tables, named, strict=True)]
    return [
        replace(table, model=model, title=title + of_cells(table) * (titles.count(title) > 1))
        for table, (model, _), title in zip(tables, named, titles, strict=True)
    ]


def of_cells(table: Table) -> str:
    """How many images the cells have, whose figures are of the first few only."""
    return f" of {table.results[0].cell['seeds']['n']:,}"


def has_lines(table: Table) -> bool:
    """Whether a row has figures in two columns or more."""
    counts = Counter(row.index for row, *_ in table.figures())
    return max(counts.values(), default=0) > 1


def within(table: Table, budgets: Iterable[int]) -> Table:
    """The table with a column for each budget. A row has there its figure with the most evaluations
    that the budget pays for: a sampler of two evaluations a step has 9 beside another's 10."""

    def most(row: Row, budget: int) -> float:
        return max((n for n in row.results if n <= budget and table.figure(row, n)), default=0)

    rows = []
    for row in table.rows:
        found = {budget: most(row, budget) for budget in budgets}
        if any(found.values()):
            rows.append(replace(row, results={b: row.results[n] for b, n in found.items() if n}))
    return replace(table, rows=rows)
