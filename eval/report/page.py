"""One HTML file that holds the whole report and asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from kdiff.eval.report.across import NFE
from kdiff.eval.report.axes import Axis, tick_text
from kdiff.eval.report.cells import Result, Sweep
from kdiff.eval.report.curves import DASHES, look
from kdiff.eval.report.digits import digits, two_digits
from kdiff.eval.report.labels import settings
from kdiff.eval.report.plots import Plot, images, plots
from kdiff.eval.report.tables import Row, Table

PNG = b"\x89PNG\r\n\x1a\n"


def render(sweep: Sweep, tables: Sequence[Table]) -> str:
    """The page's text. Everything that comes from the sweep is escaped by Jinja, and a content
    security policy lets nothing run or load but what the page itself holds."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files(__package__)
    css, js = (here.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    template = environment.from_string(here.joinpath("page.html.jinja").read_text("utf-8"))
    results = list({id(r): r for r in (*sweep.results, *sweep.unjudged)}.values())
    numbers = {id(result): i for i, result in enumerate(results)}
    labels: dict[int, str] = {}
    for table in tables:
        for row in table.rows:
            for column, result in row.results.items():
                labels.setdefault(id(result), _label(table, row, column))
    drawn = plots(tables)
    return template.render(
        sweep=sweep,
        plots=drawn,
        facts=_facts(sweep),
        commands=_commands(sweep),
        number=lambda result: numbers[id(result)],
        data={
            "views": [_view(plot, numbers) for plot in drawn],
            "dashes": DASHES,
            "results": [_result(result, labels.get(id(result))) for result in results],
        },
        css=Markup(css),
        js=Markup(js),
        allowed=f"style-src '{_csp_hash(css)}'; script-src '{_csp_hash(js)}'",
        environment={
            key: ", ".join(
                value if len(counts) == 1 else f"{value} ({count} cells)"
                for value, count in counts.items()
            )
            for key, counts in sweep.environment.items()
        },
    )


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _commands(sweep: Sweep) -> list[str]:
    """All that wrote into the folder, oldest first, each once."""
    calls = [*(sweep.about.get("earlier") or []), sweep.about]
    return list(dict.fromkeys(call["command"] for call in calls if call.get("command")))


def _facts(sweep: Sweep) -> list[str]:
    """The sweep in a few words."""
    cells = sum(len(result.first_seeds) for result in sweep.results)
    failed = len(sweep.failures)
    nfes = sorted({result.column for result in sweep.results if result.nfe is not None})
    models = dict.fromkeys(str(result.cell["model"].get("name")) for result in sweep.results)
    samplers = len({result.cell["sampler"] for result in sweep.results})
    facts = [
        ", ".join(models),
        f"{samplers} sampler{'s' * (samplers != 1)}",
        *(["NFE " + " to ".join(map(str, dict.fromkeys([nfes[0], nfes[-1]])))] if nfes else []),
        f"{cells} cell{'s' * (cells != 1)}" + (f", {failed} failed" if failed else ""),
    ]
    if created := sweep.about.get("created"):
        facts.append(str(created)[:10])
    return facts


def _label(table: Table, row: Row, column: float) -> str:
    """What its pictures are of."""
    of = [] if table.across is NFE else [table.across.heading(column, ())]
    return ", ".join([row.label, *of])


def _view(plot: Plot, numbers: dict[int, int]) -> dict[str, Any]:
    """A plot as the page's script wants it: its axes, and its lines."""
    floor = plot.noise_floor
    return {
        "model": plot.model,
        "choice": plot.title.replace(f", {plot.model}", "", 1),
        "higher": plot.higher,
        "x": _axis(plot.x),
        "y": _axis(plot.y),
        "floor": floor,
        "floorText": None if floor is None else f"noise floor {two_digits(floor)}",
        "rows": [
            {
                "label": line.label,
                "look": look(line.index),
                "points": [
                    {
                        "x": point.x,
                        "value": point.y,
                        "error": point.error,
                        "place": point.place,
                        "text": point.text,
                        "n": point.n,
                        "result": numbers[id(point.result)],
                        **({"mark": point.mark} if point.mark else {}),
                        **({"best": True} if point.best else {}),
                    }
                    for point in line.points
                ],
            }
            for line in plot.lines
        ],
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {**asdict(axis), "labels": list(map(tick_text, axis.ticks))}


def _result(result: Result, label: str | None) -> dict[str, Any]:
    """A cell's picture, and all there is to say of it: what, the text, and a note or nothing."""
    cell = result.cell
    seeds = (f"{first} to {first + cell['seeds']['n'] - 1}" for first in result.first_seeds)
    figures = {}
    for figure in result.figures:
        value, error = digits(figure)
        text = value + (f" ± {error}" if error else "")
        figures[figure.metric, figure.n] = (text, images(figure))
    about = {
        "steps": cell.get("steps"),
        "evaluations": result.most and f"{result.nfe_text} on average, at most {result.most}",
        "asks of the sampler": cell.get("asks"),
        **{
            key.replace("_", " "): text.removeprefix(f"{key}=")
            for key, text in settings(NFE.rest(cell)).items()
        },
        "noise levels": _grid(cell.get("sigmas") or []),
        "seeds": ", ".join(seeds),
        "model": cell["model"].get("name"),
        "reference": (cell.get("reference") or {}).get("name"),
    }
    return {
        "title": f"{label or cell['sampler']}, NFE {result.nfe_text}",
        "about": [[metric, *texts] for (metric, _), texts in figures.items()]
        + [[key, str(value), ""] for key, value in about.items() if value is not None],
        "grid": _data_uri(result.grid) if result.grid else None,
    }


def _grid(sigmas: Sequence[float]) -> str | None:
    if not sigmas:
        return None
    *levels, last = sigmas
    return (
        f"{sigmas[0]:.4g} to {levels[-1]:.4g}, then 0"
        if last == 0 and levels
        else (f"{sigmas[0]:.4g} to {last:.4g}")
    )


def _data_uri(path: Path) -> str | None:
    """The PNG as the page embeds it; None if the file is not a PNG."""
    data = path.read_bytes()
    if not data.startswith(PNG):
        return None
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
