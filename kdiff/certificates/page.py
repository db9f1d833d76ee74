"""One HTML file with all certificates and their curves, which asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kdiff.certificates.problems import STANDARD
from kdiff.certificates.summary import HEADINGS, row

Plain = Mapping[str, Any]
Point = tuple[float, float]
LEAST = 1e-8  # errors below are drawn here


@dataclass(frozen=True)
class Curve:
    """A line of (x, y), both above 0; `index` is its colour, None for one among many."""

    label: str
    points: Sequence[Point]
    index: int | None = None


@dataclass(frozen=True)
class Chart:
    """Curves on logarithmic axes, as the template draws them: in units of its view box."""

    title: str
    x_name: str
    y_name: str
    curves: Sequence[Curve]
    ticks: Sequence[float]
    width: int = 420
    height: int = 260
    left: int = 46
    bottom: int = 34

    @property
    def decades(self) -> list[int]:
        """The powers of ten that have a line: about six of them."""
        low, high = self._heights()
        every = math.ceil((high - low) / 6)
        return [n for n in range(low, high + 1) if (high - n) % every == 0]

    def _heights(self) -> tuple[int, int]:
        y = [math.log10(max(LEAST, y)) for curve in self.curves for _, y in curve.points]
        return math.floor(min(y)), math.ceil(max(y) + 1e-9)

    def x(self, value: float) -> float:
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        inside = (math.log(value) - low) / (high - low)
        return round(self.left + 8 + inside * (self.width - self.left - 20), 1)

    def y(self, value: float) -> float:
        low, high = self._heights()
        inside = (math.log10(max(LEAST, value)) - low) / max(1, high - low)
        return round(self.height - self.bottom - inside * (self.height - self.bottom - 10), 1)

    def path(self, curve: Curve) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in curve.points)


def render(certificates: Sequence[Plain]) -> str:
    """The page of certificates as `Certificate.as_dict` has them. All text is escaped by Jinja, and
    a content security policy lets nothing run or load."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files(__package__)
    base = files("kdiff.eval.report").joinpath("page.css").read_text("utf-8")
    css = base + here.joinpath("page.css").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(here.joinpath("page.html.jinja").read_text("utf-8"))
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return template.render(
        css=Markup(css),
        allowed=f"style-src 'sha256-{digest}'",
        certificates=certificates,
        headings=HEADINGS,
        row=row,
        failing=[one["sampler"] for one in certificates if not one["passes"]],
        overview=overview(certificates),
        problems={name: model.about for name, model in STANDARD.items()},
        charts=charts,
    )


def overview(certificates: Sequence[Plain]) -> list[Chart]:
    """For each problem: the error of all samplers, by default, against evaluations."""
    found = []
    for name in STANDARD:
        curves = [
            Curve(one["sampler"], points)
            for one in certificates
            if (points := _errors(one["settings"][0], name))
        ]
        if curves:
            found.append(_by_nfe(name, curves))
    return found


def charts(setting: Plain) -> list[Chart]:
    """Of one setting: errors against evaluations, and what its orders were measured from."""
    errors = [
        Curve(name, points, i)
        for i, name in enumerate(STANDARD)
        if (points := _errors(setting, name))
    ]
    found = [_by_nfe("error", errors)] if errors else []
    fits = [
        Curve(f"{name} {finding['text']}", points, i)
        for i, name in enumerate(("order", "strong", "weak"))
        if (finding := setting["findings"].get(name)) and (points := _pairs(finding, "steps"))
    ]
    if fits:
        ticks = sorted({x for curve in fits for x, _ in curve.points})
        found.append(Chart("convergence", "steps", "error", fits, ticks))
    kept = setting["findings"].get("tolerance", {})
    if points := _pairs(kept, "tolerances")[::-1]:
        label = f"slope {kept['text']}"
        ticks = [x for x, _ in points]
        found.append(Chart("tolerance", "tolerance", "error", [Curve(label, points, 0)], ticks))
    return found


def _by_nfe(title: str, curves: Sequence[Curve]) -> Chart:
    ticks = sorted({5, 10, 20, 50} | {x for curve in curves for x, _ in curve.points})
    shown = [ticks[0], *(n for n in (5, 10, 20, 50) if ticks[0] < n < ticks[-1]), ticks[-1]]
    return Chart(title, "evaluations", "error / std", curves, shown)


def _errors(setting: Plain, problem: str) -> list[Point]:
    pairs = setting["findings"].get("errors", {}).get(problem, [])
    return [(nfe, error) for nfe, error in pairs if error is not None]


def _pairs(finding: Plain, across: str) -> list[Point]:
    pairs = zip(finding.get(across, ()), finding.get("errors", ()), strict=False)
    return [(x, error) for x, error in pairs if error]
