"""Plots drawn by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from kdiff.eval.report.axes import tick_text
from kdiff.eval.report.digits import two_digits
from kdiff.eval.report.plots import Plot

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


def look(index: int) -> tuple[int, int, int]:
    """A row's colour, marker and dashes: in tables of many rows no two look the same."""
    again, colour = divmod(index, len(COLOURS))
    return colour, (colour + again) % len(MARKERS), again % len(DASHES)


def draw(plot: Plot, suffix: str) -> bytes:
    """The plot as a picture, `svg` or `png`; the same bytes for the same plot."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # type: ignore[arg-type]
        names = [len(line.label[:LONGEST_NAME]) for line in plot.lines]
        size = (6.6 + 0.07 * max(names), max(4.2, 0.6 + 0.19 * len(names)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(plot.title, loc="left", fontsize=10)
        _scale(axes, plot)
        _lines(axes, plot)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format=suffix, dpi=160, metadata=NO_DATE[suffix])
    return out.getvalue()


def _scale(axes: Axes, plot: Plot) -> None:
    x, y = plot.x, plot.y
    for axis, scale, of in ((axes.xaxis, axes.set_xscale, x), (axes.yaxis, axes.set_yscale, y)):
        scale("log" if of.log else "linear")
        axis.set_ticks(of.ticks, labels=[tick_text(tick) for tick in of.ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high), xlabel=x.name, ylabel=y.name)


def _lines(axes: Axes, plot: Plot) -> None:
    for line in plot.lines:
        if not line.points:
            continue
        colour, marker, dash = look(line.index)
        dashes = tuple(map(float, DASHES[dash].split()))
        across = [point.x_error or 0.0 for point in line.points]
        axes.errorbar(
            [point.x for point in line.points],
            [point.y for point in line.points],
            yerr=[point.error or 0.0 for point in line.points],
            xerr=across if any(across) else None,
            label=_name(line.label),
            color=COLOURS[colour],
            marker=MARKERS[marker],
            linestyle=(0, dashes) if dashes else "-",
            markersize=4,
            linewidth=1.3,
            capsize=2,
        )
        for point in line.points:
            if point.best:
                axes.plot(point.x, point.y, MARKERS[marker], color=COLOURS[colour], markersize=8)
            if point.mark:
                _beside(axes, point.mark, (point.x, point.y), COLOURS[colour])
    if plot.noise_floor is not None:
        text = f"noise floor {two_digits(plot.noise_floor)}"
        axes.axhline(plot.noise_floor, color="#555555", linestyle=(0, (5, 3)), linewidth=1)
        axes.annotate(
            text,
            (0, plot.noise_floor),
            xycoords=("axes fraction", "data"),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8,
            color="#555555",
        )


def _beside(axes: Axes, text: str, point: tuple[float, float], colour: str) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        point,
        xytext=(5, 4),
        textcoords="offset points",
        fontsize=7,
        color=colour,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )


def _name(label: str) -> str:
    """Not too long; and matplotlib hides what starts with an underscore."""
    short = label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…"
    return f" {short}" if short.startswith("_") else short
