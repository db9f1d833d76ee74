"""`kdiff report`: what a sweep found, as tables, curves and one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from kdiff.cli.lists import as_numbers
from kdiff.cli.planning import CONTEXT, usage_errors
from kdiff.eval.report import Sweep, Table, curves, formats, make_tables, page, read_sweep, within
from kdiff.files import whole_file
from kdiff.samplers.registry import unknown_name

TABLES: dict[str, Callable[[Sequence[Table]], str]] = {
    "csv": formats.to_csv,
    "md": formats.to_markdown,
    "latex": formats.to_latex,
}
SUFFIXES = {"latex": "tex"}
CURVES = ("svg", "png")
FORMATS = (*TABLES, *CURVES, "html")


@click.command("report", context_settings=CONTEXT)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: DIR/report]")
@click.option("--format", "wanted", default=",".join(FORMATS), help="Which of these to write.")
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be repeated.")
@click.option(
    "--budget",
    help="Tables (not the page) by these numbers of evaluations, such as 5,10,20: of each row the "
    "most within it.  [default: a column for each NFE]",
)
def command(
    folder: Path, out: Path | None, wanted: str, metrics: tuple[str, ...], budget: str | None
) -> None:
    """Write what the sweep in DIR found, as far as it is: tables, curves, and report.html, which
    holds everything and opens from disk. Print the tables as Markdown."""
    chosen = choose_formats(wanted)
    with usage_errors():
        budgets = choose_budgets(budget)
        sweep = read_sweep(folder, partial(click.echo, err=True))
        tables = make_tables(sweep, choose_metrics(sweep, metrics))
        laid = [within(table, budgets) for table in tables] if budgets else tables
    out = out or folder / "report"
    files = [*text_tables(laid, chosen), *pictures(tables, chosen)]
    if "html" in chosen:
        files.append(("report.html", page.render(sweep, tables).encode()))
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [write(out / name, data) for name, data in files]
    except OSError as error:
        raise click.UsageError(f"cannot write into {out}: {error.strerror}") from error
    if tables:
        click.echo(formats.to_markdown(laid))
    for failure in sweep.failures:
        cell = failure.cell
        click.echo(f"failed: {cell['sampler']}, NFE {cell['nfe']}: {failure.error}")
    click.echo("\n".join(map(str, written)))
    if not tables:
        raise click.ClickException("no cell has a figure")


def choose_formats(text: str) -> list[str]:
    chosen = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in FORMATS:
            raise click.UsageError(unknown_name("format", name, FORMATS))
    if not chosen:
        raise click.UsageError(f"--format takes some of {','.join(FORMATS)}")
    return chosen


def choose_metrics(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    """The sweep's names for them, whatever their case. ValueError suggests those there are."""
    known = {name.lower(): name for name in sweep.metrics}
    for name in metrics:
        if name.lower() not in known:
            raise ValueError(unknown_name("metric", name, sweep.metrics))
    return [known[name.lower()] for name in metrics]


def choose_budgets(text: str | None) -> list[int]:
    budgets = [] if text is None else as_numbers("--budget", text)
    if any(budget < 1 for budget in budgets):
        raise ValueError(f"--budget takes numbers of evaluations from 1 on, not {text!r}")
    return budgets


def text_tables(tables: Sequence[Table], chosen: Sequence[str]) -> list[tuple[str, bytes]]:
    """Each file's name and content."""
    return [
        (f"tables.{SUFFIXES.get(name, name)}", TABLES[name](tables).encode())
        for name in TABLES
        if name in chosen
    ]


def pictures(tables: Sequence[Table], chosen: Sequence[str]) -> list[tuple[str, bytes]]:
    """Each file's name and content."""
    return [
        (f"{name}.{suffix}", curves.draw(table, suffix))
        for suffix in CURVES
        if suffix in chosen
        for name, table in zip(curve_names(tables), tables, strict=True)
    ]


def curve_names(tables: Sequence[Table]) -> list[str]:
    """`fid-cifar10-n1000`: each title in plain characters, numbered where not unique."""
    names: list[str] = []
    for table in tables:
        title = table.title.lower().removesuffix(f"n = {table.n:,}") + f"n{table.n}"
        name = "-".join(re.findall("[a-z0-9_.]+", title))[:80].lstrip(".-")
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def write(path: Path, data: bytes) -> Path:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return path
