"""What is drawn of tables: a metric against their columns, and one metric against another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from kdiff.eval.report.across import NFE
from kdiff.eval.report.axes import Axis, column_axis, tick_text, value_axis
from kdiff.eval.report.cells import JUDGES, Figure, Result, bare, higher_is_better
from kdiff.eval.report.labels import comparable
from kdiff.eval.report.tables import Row, Table, has_lines

# Which metric stands against which, x first; `FD` is the FID through another network.
DISTANCES = ("FID", "FD", "FID_inf", "FD_inf", "sFID", "sFD")
SCORES = ("IS", "IS-openai", "IS-guided-diffusion")
PAIRS = [
    *((score, distance) for distance in DISTANCES for score in SCORES),
    *(("recall", "precision"), ("coverage", "density")),
]
FINE = 8  # parts of a value axis, where curves are flat


@dataclass(frozen=True)
class Point:
    """`place`: its column, in words; `text`: its figures, in words; `mark`: what stands beside it;
    `best`: it is drawn larger. Errors are standard errors, where known."""

    x: float
    y: float
    error: float | None
    place: str
    text: str
    n: str
    result: Result
    x_error: float | None = None
    mark: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row's points; `index` says how it looks."""

    label: str
    index: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Plot:
    """A line for each row of a table. `higher`: the larger y is the better; `table`: what shows the
    same figures, if one table does."""

    title: str
    caption: str
    model: str
    x: Axis
    y: Axis
    higher: bool
    lines: Sequence[Line]
    noise_floor: float | None = None
    table: Table | None = None


def plots(tables: Sequence[Table]) -> list[Plot]:
    """Each table's own; then, of tables by an option, those of one metric against another."""
    return [*map(curves, tables), *trade_offs(tables)]


def curves(table: Table) -> Plot:
    """The metric against the table's columns. Where rows have a best figure, it is marked, and the
    noise floor is left out if it is outside the axis: it would flatten the curves."""
    in_rows = table.across.best_of == "row"
    lines = [
        Line(
            row.label,
            row.index,
            [
                Point(
                    x=column,
                    y=figure.value,
                    error=figure.error,
                    place=table.place(row, column),
                    text=table.text(row, column),
                    n=images(figure),
                    result=row.results[column],
                    best=in_rows and table.is_best(row, column),
                )
                for column, figure in table.of(row)
            ],
        )
        for row in table.rows
    ]
    floor = table.noise_floor
    y = value_axis(table, parts=FINE) if in_rows else value_axis(table, floor)
    return Plot(
        *(table.title, table.caption, table.model, column_axis(table), y),
        *(higher_is_better(table.metric), lines),
        noise_floor=floor if floor is not None and y.low <= floor <= y.high else None,
        table=table,
    )


def trade_offs(tables: Sequence[Table]) -> Iterator[Plot]:
    """For all `PAIRS` of metrics by the values of one option, of the same images as one network
    sees them: one against the other, if that gives a line."""
    by_option = [table for table in tables if table.across is not NFE and has_lines(table)]
    for pair in PAIRS:
        for x, y in product(by_option, repeat=2):
            if (bare(x.metric), bare(y.metric)) == pair and _alike(x) == _alike(y):
                yield _trade_off(x, y)


def _alike(table: Table) -> tuple[str, str, int]:
    return table.across.name, comparable(table.results[0], JUDGES), table.n


def _trade_off(x: Table, y: Table) -> Plot:
    lines = []
    for row in y.rows:
        other = next((one for one in x.rows if one.label == row.label), None)
        points = list(_points(x, other, y, row)) if other else []
        lines.append(Line(row.label, row.index, points))
    title = y.title.replace(y.metric, f"{y.metric} against {x.metric}", 1)
    caption = f"Each line follows {y.across.name}, whose value stands beside each point."
    x_axis, y_axis = (
        replace(value_axis(one, parts=FINE), name=_directed(one.metric)) for one in (x, y)
    )
    return Plot(title, caption, y.model, x_axis, y_axis, higher_is_better(y.metric), lines)


def _points(x: Table, x_row: Row, y: Table, y_row: Row) -> Iterator[Point]:
    for column in y.columns:
        across, up = x.figure(x_row, column), y.figure(y_row, column)
        if across is not None and up is not None:
            yield Point(
                x=across.value,
                y=up.value,
                error=up.error,
                x_error=across.error,
                place=y.place(y_row, column),
                text=f"{y.metric} {y.text(y_row, column)}, {x.metric} {x.text(x_row, column)}",
                n=images(up),
                result=y_row.results[column],
                mark=tick_text(column),
            )


def _directed(metric: str) -> str:
    return f"{metric}, {'higher' if higher_is_better(metric) else 'lower'} is better"


def images(figure: Figure) -> str:
    """`N = 1,000, 3 repeats`."""
    repeats = f", {figure.repeats} repeats" if figure.repeats > 1 else ""
    return f"N = {figure.n:,}{repeats}"
