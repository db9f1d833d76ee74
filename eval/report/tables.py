"""Tables of samplers by NFE, and how figures are written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdiff.eval.report.cells import (
    JUDGES,
    WITHOUT_NETWORK,
    Figure,
    Result,
    Sweep,
    higher_is_better,
)
from kdiff.samplers import REGISTRY

MISSING, FAILED = "—", "failed"
# Not a row's: they are the table's, the column's, or follow from sampler, schedule and NFE.
NOT_THE_ROWS = (
    *("model", "features", "reference", "metrics", "seeds"),
    *("sampler", "options", "nfe", "steps", "sigmas"),
)


@dataclass(frozen=True)
class Row:
    """A sampler with its settings; `index` is the same in every table of the sweep."""

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
        """What a reader must know to use the figures."""
        about = _about(self)
        if self.noise_floor is None:
            return about
        floor = two_digits(self.noise_floor)
        return f"{about} Noise floor: about {floor}, what perfect samples would get."

    @property
    def nfes(self) -> list[int]:
        return sorted({nfe for row in self.rows for nfe in row.results})

    @property
    def noise_floor(self) -> float | None:
        """What as many perfect samples would get, as the first cell that knows says."""
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
        exact = all(row.results[nfe].cell["nfe"] == nfe for row in self.rows if nfe in row.results)
        return f"NFE {nfe}" if exact else f"NFE ≤ {nfe}"

    def text(self, row: Row, nfe: int) -> str:
        """`12.31 ± 0.21`; then its NFE if it is not the column's, and how many repeats where it has
        fewer than others."""
        figure = self.figure(row, nfe)
        if figure is None:
            return FAILED if self.failed(row, nfe) else MISSING
        value, error = digits(figure)
        most = max(f.repeats for *_, f in self.figures())
        own = row.results[nfe].cell["nfe"]
        less = f" (NFE {own})" if own != nfe else ""
        fewer = f" (of {figure.repeats})" if figure.repeats < most else ""
        return value + (f" ± {error}" if error else "") + less + fewer

    def is_best(self, row: Row, nfe: int) -> bool:
        """Not to be told from the best by what is printed of the one or of the other."""
        figure, best = self.figure(row, nfe), self.best(nfe)
        return figure is not None and best is not None and _alike(figure, best)


def make_tables(sweep: Sweep, metrics: Iterable[str] = ()) -> list[Table]:
    """One table for each metric, model, network, reference and N: figures of different N, or
    against different references, are never in one table. Network and reference do not matter to
    the metrics `WITHOUT_NETWORK`. `metrics`: only these."""
    wanted = list(metrics) or sweep.metrics
    judged = _labelled(sweep.results, JUDGES)
    unjudged = _labelled(sweep.unjudged, ())
    order = _order([*judged, *unjudged])
    found = []
    for labelled, subject in ((judged, JUDGES), (unjudged, ())):
        groups: dict[str, list[tuple[str, Result]]] = {}
        for label, result in labelled:
            groups.setdefault(_comparable(result, subject), []).append((label, result))
        for group in groups.values():
            results = [result for _, result in group]
            rows: dict[str, dict[int, Result]] = {}
            for label, result in group:
                rows.setdefault(label, {})[result.cell["nfe"]] = result
            for metric, n in dict.fromkeys((f.metric, f.n) for r in results for f in r.figures):
                if metric not in wanted or (metric in WITHOUT_NETWORK) != (not subject):
                    continue
                laid = [
                    Row(label, order[label], cells)
                    for label, cells in sorted(rows.items(), key=lambda item: order[item[0]])
                    if any(not r.figures or r.figure(metric, n) for r in cells.values())
                ]
                of = {key: results[0].cell.get(key) for key in ("model", *subject)}
                found.append((metric, n, of, laid))
    found.sort(key=lambda one: wanted.index(one[0]))
    names = _names([(metric, cell) for metric, _, cell, _ in found])
    titles = [f"{title}, N = {n:,}" for (_, n, _, _), (_, title) in zip(found, names, strict=True)]
    return [
        Table(metric, model, n, title + of_cells(rows) * (titles.count(title) > 1), rows)
        for (metric, n, _, rows), (model, _), title in zip(found, names, titles, strict=True)
    ]


def of_cells(rows: Sequence[Row]) -> str:
    """How many images the cells have of which the figures are of the first few."""
    cell = next(result.cell for row in rows for result in row.results.values())
    return f" of {cell['seeds']['n']:,}"


def within(table: Table, budgets: Iterable[int]) -> Table:
    """The table with a column for each budget, which has of each row the figure that took the most
    evaluations up to it: a sampler of two evaluations a step has 9 beside another's 10."""

    def most(row: Row, budget: int) -> int:
        return max((n for n in row.results if n <= budget and table.figure(row, n)), default=0)

    rows = []
    for row in table.rows:
        found = {budget: most(row, budget) for budget in budgets}
        if any(found.values()):
            rows.append(replace(row, results={b: row.results[n] for b, n in found.items() if n}))
    return replace(table, rows=rows)


def _alike(a: Figure, b: Figure) -> bool:
    return any(digits(a)[0] == digits(replace(a, value=b.value))[0] for a, b in ((a, b), (b, a)))


def digits(figure: Figure) -> tuple[str, str | None]:
    """Value and error as printed: the value ends where its error does, which has two digits if
    they are 35 or less, else one (the Particle Data Group's rule, but 0.95 stays 0.9 or 1.0);
    four digits where no error is known, at most six."""
    value, error = figure.value, figure.error
    if not error:
        return significant(value), None if error is None else "0"
    exponent = math.floor(math.log10(error))
    place = -exponent + (error / 10.0**exponent < 3.55)
    most = 5 - (math.floor(math.log10(abs(value))) if value else 0)
    decimals = max(0, min(place, most))
    if decimals > 6:
        return f"{value:.3e}", f"{error:.1e}"
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}" if place <= most else f"{error:.1g}"


def two_digits(value: float) -> str:
    """Of what is known roughly."""
    return f"{float(f'{value:.1e}'):g}"


def significant(value: float) -> str:
    """Four significant digits, those before the point all shown."""
    if value == 0:
        return "0"
    place = math.floor(math.log10(abs(value)))
    return f"{value:.3e}" if place < -4 else f"{value:.{max(0, 3 - place)}f}"


def settings(cell: Mapping[str, Any]) -> dict[str, str]:
    """A row's settings beside its sampler, in words: options that are not the default, the rest
    as it is."""
    sampler = REGISTRY.get(cell["sampler"])
    defaults = sampler.with_defaults() if sampler else {}
    options = (cell.get("options") or {}).items()
    shown = {  # as text: JSON has no infinity, and has it as "inf"
        key: f"{key}={value}" for key, value in options if str(defaults.get(key)) != str(value)
    }
    for key, value in cell.items():
        if key not in NOT_THE_ROWS:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            shown[key] = text if key in ("schedule", "dtype") else f"{key}={text}"
    return shown


def _labelled(results: Sequence[Result], subject: Sequence[str]) -> list[tuple[str, Result]]:
    """Each result under its row's name: the sampler, its options where not default, and what else
    is not the same all over the sweep; where that does not tell two apart, their noise levels, or
    their numbers."""
    described = [settings(result.cell) for result in results]
    keys = dict.fromkeys(key for one in described for key in one)
    differing = [key for key in keys if len({one.get(key) for one in described}) > 1]
    labels = []
    for result, one in zip(results, described, strict=True):
        options = result.cell.get("options") or {}
        shown = [one[key] for key in one if key in options or key in differing]
        sampler = str(result.cell["sampler"])
        labels.append(f"{sampler} ({', '.join(shown)})" if shown else sampler)
    for tell_apart in (_noise_levels, lambda _, nth: f"[{nth}]"):
        places = [
            (label, _comparable(r, subject), r.cell["nfe"])
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


def _order(labelled: Sequence[tuple[str, Result]]) -> dict[str, int]:
    """Each row's place: as `kdiff list` has the samplers, since cells finish in any order."""
    listed = {name: i for i, name in enumerate(REGISTRY)}
    places = {label: listed.get(r.cell["sampler"], len(listed)) for label, r in labelled}
    return {label: i for i, label in enumerate(sorted(places, key=places.__getitem__))}


def _noise_levels(result: Result, _: int) -> str:
    levels = [sigma for sigma in result.cell.get("sigmas") or [] if sigma]
    return f"[{levels[0]:.4g} to {levels[-1]:.4g}]" if levels else ""


def _comparable(result: Result, subject: Sequence[str]) -> str:
    """What the figures of one table have in common, `subject` besides model and N."""
    cell = result.cell
    of = [cell.get(key) for key in ("model", *subject)]
    return json.dumps([of, cell["seeds"]["n"]], sort_keys=True)


def _names(subjects: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """For each table its model's name and its title, which says what sets it apart from others
    of the same metric."""
    models = [cell["model"] for _, cell in subjects]
    names = []
    for metric, cell in subjects:
        model = str(_name(cell["model"], models))
        alike = [other for name, other in subjects if name == metric]
        every = [_judge(other, alike) for other in alike]
        own = _judge(cell, alike)
        told = [text for key, text in own.items() if len({one.get(key) for one in every}) > 1]
        names.append((model, ", ".join([metric, model, *told])))
    return names


def _judge(cell: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """In words, what it has of network, resize mode and reference."""

    def name(key: str) -> str | None:
        return _name(cell.get(key), [other.get(key) for other in among])

    resize = (cell.get("features") or {}).get("resize")
    words = {
        **{"features": ("network", name("features")), "resize": ("resize", resize)},
        **{"reference": ("against", name("reference"))},
    }
    return {key: f"{word} {value}" for key, (word, value) in words.items() if value}


def _name(one: Mapping[str, Any] | None, among: Sequence[Mapping[str, Any] | None]) -> str | None:
    """Its name, with its hash's start if another has the same name."""
    if one is None:
        return None
    name = str(one.get("name"))
    hashes = {_hash(other) for other in among if other and other.get("name") == one.get("name")}
    return f"{name} {_hash(one)[:8]}" if len(hashes) > 1 else name


def _hash(one: Mapping[str, Any]) -> str:
    return str(one.get("sha256") or one.get("weights"))


def _about(table: Table) -> str:
    better = "higher" if higher_is_better(table.metric) else "lower"
    text = WITHOUT_NETWORK.get(table.metric, table.metric)
    cell = next(result.cell for row in table.rows for result in row.results.values())
    features, reference = cell.get("features"), cell.get("reference")
    if features and table.metric not in WITHOUT_NETWORK:
        if reference and not table.metric.startswith("IS"):
            size = f" ({reference['n']:,} images)" if reference.get("n") else ""
            text += f" against {reference.get('name')}{size}"
        resize = f", resize {features['resize']}" if features.get("resize") else ""
        text += f", network {features.get('name')}{resize}"
    repeats = _repeats([figure for *_, figure in table.figures()])
    return f"{text}; {better} is better. N = {table.n:,} images in each {repeats}"


def _repeats(figures: Sequence[Figure]) -> str:
    counts = sorted({figure.repeats for figure in figures})
    if counts == [1]:
        known = any(figure.error is not None for figure in figures)
        return "figure" + (", ± its evaluation's own error." if known else "; no error is known.")
    most = counts[-1]
    text = f"of {most} repeats, of which a figure is the mean ± its standard error"
    return text + ("; (of 1) and the like mark fewer." if len(counts) > 1 else ".")
