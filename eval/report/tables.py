"""Tables of samplers by NFE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
from kdiff.eval.report.titles import about, names

MISSING, FAILED = "—", "failed"


@dataclass(frozen=True)
class Row:
    """A sampler with its settings, and its results by their column (see `Result`); `index` is the
    same in every table of the sweep."""

    label: str
    index: int
    results: Mapping[int, Result]


@dataclass(frozen=True)
class Table:
    """One metric of one model at one N: figures that may be compared."""

    metric: str
    model: str
    n: int
    title: str
    rows: Sequence[Row]

    @property
    def caption(self) -> str:
        """What a reader must know in order to use the figures."""
        cell = next(result.cell for row in self.rows for result in row.results.values())
        text = about(cell, self.metric, self.n, [figure for *_, figure in self.figures()])
        if self.noise_floor is None:
            return text
        floor = two_digits(self.noise_floor)
        return f"{text} Noise floor: about {floor}, what perfect samples would get."

    @property
    def nfes(self) -> list[int]:
        return sorted({nfe for row in self.rows for nfe in row.results})

    @property
    def noise_floor(self) -> float | None:
        """The figure that as many perfect samples would get, if a cell has it."""
        floors = (r.noise_floor.get(self.metric) for row in self.rows for r in row.results.values())
        return next((floor for floor in floors if floor is not None), None)

    def figure(self, row: Row, nfe: int) -> Figure | None:
        result = row.results.get(nfe)
        return result.figure(self.metric, self.n) if result else None

    def figures(self) -> Iterator[tuple[Row, int, Figure]]:
        for row in self.rows:
            for nfe in self.nfes:
                if (figure := self.figure(row, nfe)) is not None:
                    yield row, nfe, figure

    def failed(self, row: Row, nfe: int) -> bool:
        """A cell without any figure, not only without this one."""
        result = row.results.get(nfe)
        return result is not None and not result.figures and bool(result.failures)

    def best(self, nfe: int) -> Figure | None:
        """The best figure of a column; None if it has fewer than two."""
        column = [figure for row in self.rows if (figure := self.figure(row, nfe)) is not None]
        if len(column) < 2:
            return None
        choose = max if higher_is_better(self.metric) else min
        return choose(column, key=lambda figure: figure.value)

    def heading(self, nfe: int) -> str:
        """Of a column: `NFE 10`, or `NFE ≤ 10` if some of its cells have fewer."""
        exact = all(row.results[nfe].nfe == nfe for row in self.rows if nfe in row.results)
        return f"NFE {nfe}" if exact else f"NFE ≤ {nfe}"

    def text(self, row: Row, nfe: int) -> str:
        """`12.31 ± 0.21`; then its NFE if it is not the column's, and how many repeats where it has
        fewer than others."""
        figure = self.figure(row, nfe)
        if figure is None:
            return FAILED if self.failed(row, nfe) else MISSING
        value, error = digits(figure)
        most = max(f.repeats for *_, f in self.figures())
        result = row.results[nfe]
        less = f" (NFE {result.nfe_text})" if result.nfe != nfe else ""
        fewer = f" (of {figure.repeats})" if figure.repeats < most else ""
        return value + (f" ± {error}" if error else "") + less + fewer

    def is_best(self, row: Row, nfe: int) -> bool:
        """Whether it equals the best figure of its column at the printed precision."""
        figure, best = self.figure(row, nfe), self.best(nfe)
        return figure is not None and best is not None and alike(figure, best)


def make_tables(sweep: Sweep, metrics: Iterable[str] = ()) -> list[Table]:
    """One table for each metric, model, network, reference and N: figures of different N, or
    against different references, are never in one table. Network and reference do not matter to
    the metrics `WITHOUT_NETWORK`. `metrics`: only these. A result whose NFE is not known, because
    its sampler is adaptive and failed, is not in the tables."""
    wanted = list(metrics) or sweep.metrics
    judged = labelled([r for r in sweep.results if r.nfe is not None], JUDGES)
    unjudged = labelled([r for r in sweep.unjudged if r.nfe is not None], ())
    places = order([*judged, *unjudged])
    found = []
    for named, subject in ((judged, JUDGES), (unjudged, ())):
        groups: dict[str, list[tuple[str, Result]]] = {}
        for label, result in named:
            groups.setdefault(comparable(result, subject), []).append((label, result))
        for group in groups.values():
            results = [result for _, result in group]
            rows: dict[str, dict[int, Result]] = {}
            for label, result in group:
                rows.setdefault(label, {})[result.column] = result
            for metric, n in dict.fromkeys((f.metric, f.n) for r in results for f in r.figures):
                if metric not in wanted or (metric in WITHOUT_NETWORK) != (not subject):
                    continue
                laid = [
                    Row(label, places[label], cells)
                    for label, cells in sorted(rows.items(), key=lambda item: places[item[0]])
                    if any(not r.figures or r.figure(metric, n) for r in cells.values())
                ]
                of = {key: results[0].cell.get(key) for key in ("model", *subject)}
                found.append((metric, n, of, laid))
    found.sort(key=lambda one: wanted.index(one[0]))
    titled = names([(metric, cell) for metric, _, cell, _ in found])
    titles = [f"{title}, N = {n:,}" for (_, n, _, _), (_, title) in zip(found, titled, strict=True)]
    return [
        Table(metric, model, n, title + of_cells(rows) * (titles.count(title) > 1), rows)
        for (metric, n, _, rows), (model, _), title in zip(found, titled, titles, strict=True)
    ]


def of_cells(rows: Sequence[Row]) -> str:
    """How many images the cells have, whose figures are of the first few only."""
    cell = next(result.cell for row in rows for result in row.results.values())
    return f" of {cell['seeds']['n']:,}"


def within(table: Table, budgets: Iterable[int]) -> Table:
    """The table with a column for each budget. A row has there its figure with the most evaluations
    that the budget pays for: a sampler of two evaluations a step has 9 beside another's 10."""

    def most(row: Row, budget: int) -> int:
        return max((n for n in row.results if n <= budget and table.figure(row, n)), default=0)

    rows = []
    for row in table.rows:
        found = {budget: most(row, budget) for budget in budgets}
        if any(found.values()):
            rows.append(replace(row, results={b: row.results[n] for b, n in found.items() if n}))
    return replace(table, rows=rows)
