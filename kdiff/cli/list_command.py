"""`kdiff list`: what there is, as tables for people or JSON for machines."""

from __future__ import annotations

import inspect
import shutil
from typing import Any

import click

from kdiff.checkpoints import formats
from kdiff.cli.grid_options import CONTEXT, to_json
from kdiff.eval.evaluation import all_metrics
from kdiff.eval.features import feature_networks
from kdiff.hashes import sha256_of_file
from kdiff.models import packaged_models
from kdiff.plugins import plugins
from kdiff.samplers import REGISTRY
from kdiff.schedules import SCHEDULES


def samplers() -> list[dict[str, Any]]:
    plugins("kdiff.samplers")  # they register themselves
    rows = []
    for s in REGISTRY.values():
        options = s.with_defaults()
        described = {
            o.name: {"default": o.default, "allowed": o.allowed(), "help": o.help}
            for o in s.options.values()
        }
        rows.append(
            {
                "name": s.name,
                "order": s.order(options),
                "nfe_20_steps": s.nfe(20),
                "noise": s.noise if s.stochastic() else "none",
                "options": described,
                "aliases": [*s.aliases, *s.presets],
                "paper": s.paper,
            }
        )
    return rows


def schedules() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "for": "discrete models" if schedule.discrete else "any model",
            "settings": schedule.settings,
            "about": " ".join(schedule.about.split()),
        }
        for name, schedule in SCHEDULES.all().items()
    ]


def models() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of_file(path),
            "file": str(path),
        }
        for name, path in packaged_models().items()
    ]


def metrics() -> list[dict[str, Any]]:
    return [{"name": name, "label": m.label, "about": m.help} for name, m in all_metrics().items()]


def features() -> list[dict[str, Any]]:
    return [{"name": name, "about": about} for name, about in feature_networks().items()]


def checkpoint_formats() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "about": (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " "),
        }
        for name, module in formats().items()
    ]


LISTS = {
    "samplers": samplers,
    "schedules": schedules,
    "models": models,
    "formats": checkpoint_formats,
    "metrics": metrics,
    "features": features,
}
COLUMNS = {
    "samplers": ["name", "order", "nfe_20_steps", "noise", "aliases", "options"],
    "schedules": ["name", "for", "about"],
    "models": ["name", "bytes", "sha256"],
    "formats": ["name", "about"],
    "metrics": ["name", "about"],
    "features": ["name", "about"],
}


@click.command("list", context_settings=CONTEXT)
@click.argument("what", type=click.Choice(list(LISTS)), default="samplers")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def command(what: str, as_json: bool) -> None:
    """Show the samplers, schedules, models, checkpoint formats, metrics or feature networks."""
    rows = LISTS[what]()
    if as_json:
        click.echo(to_json(rows))
    else:
        click.echo(table(rows, COLUMNS[what]))


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Aligned columns; the last is cut at the terminal's edge."""
    lines = [columns, *([_cell(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    width = shutil.get_terminal_size((120, 24)).columns
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(
        t.rstrip() if len(t.rstrip()) <= width else t[: width - 2] + " …" for t in text
    )


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, (list, dict)) else str(value)
