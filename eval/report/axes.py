"""Axes of curves: from where to where, logarithmic or not, and which ticks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kdiff.eval.report.across import NFE
from kdiff.eval.report.cells import higher_is_better
from kdiff.eval.report.tables import Table

WIDE = 10  # values of an option that span this factor stand on a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, logarithmic or not, with the ticks that are labelled."""

    name: str
    low: float
    high: float
    log: bool
    ticks: Sequence[float]


def value_axis(table: Table, floor: float | None = None, parts: int = 5) -> Axis:
    """All values and the noise floor. Logarithmic if they are positive and span a factor of 2 or
    more, unless the metric is itself a score or a share; errors have room where it is not. An axis
    that is not logarithmic has about so many `parts`."""
    values = [figure.value for *_, figure in table.figures()]
    if floor is not None:
        values.append(floor)
    errors = [figure.error or 0.0 for *_, figure in table.figures()]
    if not higher_is_better(table.metric) and min(values) > 0 and max(values) >= 2 * min(values):
        margin = (max(values) / min(values)) ** 0.1
        low, high = min(values) / margin, max(values) * margin
        return Axis(table.metric, low, high, True, _log_ticks(low, high))
    largest = max(errors, default=0.0)
    margin = largest + 0.06 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
    low, high = min(values) - margin, max(values) + margin
    return Axis(table.metric, low, high, False, _even_ticks(low, high, parts))


def column_axis(table: Table) -> Axis:
    """Ticks are where the cells are; where they crowd, where the most are. Logarithmic for NFE, and
    for options whose values are positive and span a factor of 10 or more."""
    counts = Counter(column for _, column, _ in table.figures())
    least, most = min(counts), max(counts)
    log = table.across is NFE or (least > 0 and most >= WIDE * least)
    if log:
        low, high = least / 1.1, most * 1.1
    else:
        margin = 0.05 * (most - least) or 1.0
        low, high = least - margin, most + margin
    place = math.log if log else float
    room = 0.05 * (place(high) - place(low))
    ticks: list[float] = []
    for column, _ in counts.most_common():
        if all(abs(place(column) - place(tick)) > room for tick in ticks):
            ticks.append(column)
    return Axis(table.across.name, low, high, log, sorted(ticks))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; where these are few, round numbers between them too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks


def _even_ticks(low: float, high: float, parts: int) -> list[float]:
    """About so many round numbers."""
    rough = (high - low) / parts
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_text(value: float) -> str:
    """`0.1`, `20`, `5,000`: no more digits than there are."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e7 or value == 0 else f"{value:.3g}"
