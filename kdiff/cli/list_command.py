"""`kdiff list`: what there is, as tables for people or JSON for machines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import click

from kdiff.cli.grid_options import CONTEXT, to_json
from kdiff.cli.listings import LISTINGS, Row
from kdiff.interrupt import ExitAtOnce


@click.command("list", context_settings=CONTEXT)
@click.argument("what", type=click.Choice(list(LISTINGS)), default="samplers")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def command(what: str, as_json: bool) -> None:
    """Show everything of one kind that has a name: samplers, schedules, guidance ..

    The JSON has more than the table: the help and the default of each option, what each is about,
    and its paper.
    """
    with ExitAtOnce():  # this may import torch
        shown = LISTINGS[what]
        rows = shown.rows()
    if as_json:
        click.echo(to_json(rows))
    elif rows:
        click.echo("\n\n".join(filter(None, [table(rows, shown.columns), shown.note])))
    else:
        click.echo(f"kdiff has no {what} yet, and no package here adds any")


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns; the last is cut at the terminal's edge."""
    lines = [list(columns), *([_cell(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    width = shutil.get_terminal_size((120, 24)).columns
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(
        t.rstrip() if len(t.rstrip()) <= width else t[: width - 2] + " …" for t in text
    )


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    return ", ".join(value) if isinstance(value, list | dict) else str(value)
