"""A metric against NFE, drawn by matplotlib."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdiff.eval.report.cells import higher_is_better
from kdiff.eval.report.digits import two_digits
from kdiff.eval.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, without the yellow that white swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5519c", "#c98a00", "#3f8fc4", "#6a51a3", "#666666")
MARKERS = "os^DvPX*"
DASHES = ("", "6 3", "2 2", "8 3 2 3")  # as SVG has them
LONGEST_NAME = 48
# The same picture gives the same bytes; names are never read as formulas.
STYLE = {
    **{"svg.hashsalt": "kdiff", "text.parse_math": False, "font.size": 9},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True},
}
NO_DATE: dict[str, dict[str, str | None]] = {"svg": {"Date": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, logarithmic or not, with the ticks that are labelled."""

    low: float
    high: float
    log: bool
    ticks: Sequence[float]


def value_axis(table: Table) -> Axis:
    """All values and the noise floor. Logarithmic if they are positive and span a factor of 2 or
    more, unless the metric is itself a score or a share; errors have room where it is not."""
    values = [figure.value for *_, figure in table.figures()]
    if table.noise_floor is not None:
        values.append(table.noise_floor)
    errors = [figure.error or 0.0 for *_, figure in table.figures()]
    if not higher_is_better(table.metric) and min(values) > 0 and max(values) >= 2 * min(values):
        margin = (max(values) / min(values)) ** 0.1
        low, high = min(values) / margin, max(values) * margin
        return Axis(low, high, True, _log_ticks(low, high))
    largest = max(errors, default=0.0)
    margin = largest + 0.06 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
    low, high = min(values) - margin, max(values) + margin
    return Axis(low, high, False, _even_ticks(low, high))


def nfe_axis(table: Table) -> Axis:
    """Logarithmic, with ticks where the cells are; where they crowd, where the most are."""
    counts = Counter(nfe for _, nfe, _ in table.figures())
    low, high = min(counts) / 1.1, max(counts) * 1.1
    room = 0.05 * math.log(high / low)
    ticks: list[int] = []
    for nfe, _ in counts.most_common():
        if all(abs(math.log(nfe / tick)) > room for tick in ticks):
            ticks.append(nfe)
    return Axis(low, high, True, sorted(ticks))


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; where these are few, round numbers between them too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks


def _even_ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_text(value: float) -> str:
    """`0.1`, `20`, `5,000`: no more digits than there are."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e7 or value == 0 else f"{value:.3g}"


def look(index: int) -> tuple[int, int, int]:
    """A row's colour, marker and dashes: in tables of many rows no two look the same."""
    again, colour = divmod(index, len(COLOURS))
    return colour, (colour + again) % len(MARKERS), again % len(DASHES)


def draw(table: Table, suffix: str) -> bytes:
    """The table as a picture, `svg` or `png`; the same bytes for the same table."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # type: ignore[arg-type]
        names = [len(row.label[:LONGEST_NAME]) for row in table.rows]
        size = (6.6 + 0.07 * max(names), max(4.2, 0.6 + 0.19 * len(names)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(table.title, loc="left", fontsize=10)
        axes.set_ylabel(table.metric)
        _scale(axes, nfe_axis(table), value_axis(table))
        _lines(axes, table)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format=suffix, dpi=160, metadata=NO_DATE[suffix])
    return out.getvalue()


def _scale(axes: Axes, x: Axis, y: Axis) -> None:
    for axis, scale, of in ((axes.xaxis, axes.set_xscale, x), (axes.yaxis, axes.set_yscale, y)):
        scale("log" if of.log else "linear")
        axis.set_ticks(of.ticks, labels=[tick_text(tick) for tick in of.ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high), xlabel="NFE")


def _lines(axes: Axes, table: Table) -> None:
    for row in table.rows:
        points = [(nfe, figure) for one, nfe, figure in table.figures() if one is row]
        if not points:
            continue
        colour, marker, dash = look(row.index)
        dashes = tuple(map(float, DASHES[dash].split()))
        axes.errorbar(
            [nfe for nfe, _ in points],
            [figure.value for _, figure in points],
            yerr=[figure.error or 0.0 for _, figure in points],
            label=_name(row.label),
            color=COLOURS[colour],
            marker=MARKERS[marker],
            linestyle=(0, dashes) if dashes else "-",
            markersize=4,
            linewidth=1.3,
            capsize=2,
        )
    if table.noise_floor is not None:
        text = f"noise floor {two_digits(table.noise_floor)}"
        axes.axhline(table.noise_floor, color="#555555", linestyle=(0, (5, 3)), linewidth=1)
        axes.annotate(
            text,
            (0, table.noise_floor),
            xycoords=("axes fraction", "data"),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8,
            color="#555555",
        )


def _name(label: str) -> str:
    """Not too long; and matplotlib hides what starts with an underscore."""
    short = label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…"
    return f" {short}" if short.startswith("_") else short
