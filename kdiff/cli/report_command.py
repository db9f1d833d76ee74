"""`kdiff report`: what a sweep found, as tables, curves and one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from kdiff.cli.grid_options import CONTEXT, usage_errors
from kdiff.cli.lists import as_budgets, as_list
from kdiff.cli.paths import UserPath
from kdiff.eval.report import Sweep, Table, curves, formats, make_tables, page, read_sweep, within
from kdiff.files import whole_file
from kdiff.names import unknown_name
from kdiff.samplers import UnknownName, resolve

FORMATS = ("csv", "md", "latex", "svg", "png", "html")


@click.command("report", context_settings=CONTEXT)
@click.argument("folder", metavar="DIR", type=UserPath())
@click.option("--out", type=UserPath(), help="Folder.  [default: DIR/report]")
@click.option("--format", "wanted", default=",".join(FORMATS), help="Which of these to write.")
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be repeated.")
@click.option("--sampler", "samplers", help="Only these samplers, a list.")
@click.option(
    "--budget",
    help="In tables.md and tables.tex a column for each of these numbers of evaluations, such as "
    "5,10,20, with each row's most within it.  [default: for each NFE]",
)
def command(
    folder: Path,
    out: Path | None,
    wanted: str,
    metrics: tuple[str, ...],
    samplers: str | None,
    budget: str | None,
) -> None:
    """Write what the sweep in DIR found, as far as it is: tables, curves, and report.html, which
    holds everything and opens from disk. Print the tables as Markdown."""
    with usage_errors():
        chosen = choose_formats(wanted)
        budgets = [] if budget is None else as_budgets("--budget", budget)
        sweep = read_sweep(folder, partial(click.echo, err=True))
        if samplers is not None:
            sweep = choose_samplers(sweep, as_list("--sampler", samplers))
        tables = make_tables(sweep, choose_metrics(sweep, metrics))
        laid = by_budget(tables, budgets) if budgets else tables
    out = out or folder / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [write(out / name, data) for name, data in documents(sweep, tables, laid, chosen)]
    except OSError as error:
        raise click.UsageError(f"cannot write into {out}: {error.strerror}") from error
    if tables:
        click.echo(formats.to_markdown(laid))
    for failure in sweep.failures:
        click.echo(f"failed: {failure.subject}: {failure.error}")
    click.echo("\n".join(map(str, written)))
    if not tables:
        raise click.ClickException("no cell has a figure")


def choose_formats(text: str) -> list[str]:
    chosen = [name.lower() for name in as_list("--format", text)]
    for name in chosen:
        if name not in FORMATS:
            raise UnknownName(unknown_name("format", name, FORMATS))
    return chosen


def choose_samplers(sweep: Sweep, names: Sequence[str]) -> Sweep:
    """What the sweep has of these samplers. ValueError if it has nothing of one."""
    known = list(dict.fromkeys(result.cell["sampler"] for result in sweep.results))
    wanted = [name if name in known else resolve(name).sampler.name for name in names]
    for name in wanted:
        if name not in known:
            raise ValueError(f"the sweep has no {name}; it has {', '.join(known)}")
    return replace(
        sweep,
        results=[result for result in sweep.results if result.cell["sampler"] in wanted],
        unjudged=[result for result in sweep.unjudged if result.cell["sampler"] in wanted],
    )


def choose_metrics(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    """The sweep's names for them, whatever their case. ValueError suggests those there are."""
    known = {name.lower(): name for name in sweep.metrics}
    for name in metrics:
        if name.lower() not in known:
            raise ValueError(unknown_name("metric", name, sweep.metrics))
    return [known[name.lower()] for name in metrics]


def by_budget(tables: Sequence[Table], budgets: Sequence[int]) -> list[Table]:
    """Those that have a figure within a budget. ValueError if none has."""
    laid = [short for table in tables if (short := within(table, budgets)).rows]
    if tables and not laid:
        least = min(min(table.nfes) for table in tables)
        raise ValueError(f"no figure is within the budget; the least NFE is {least}")
    return laid


def documents(
    sweep: Sweep, tables: Sequence[Table], laid: Sequence[Table], chosen: Sequence[str]
) -> list[tuple[str, bytes]]:
    """Each file's name and content; `laid` are the tables as they are shown."""
    make: dict[str, Callable[[], list[tuple[str, bytes]]]] = {
        "csv": lambda: [("tables.csv", formats.to_csv(tables).encode())],
        "md": lambda: [("tables.md", formats.to_markdown(laid).encode())],
        "latex": lambda: [("tables.tex", formats.to_latex(laid).encode())],
        "svg": lambda: pictures(tables, "svg"),
        "png": lambda: pictures(tables, "png"),
        "html": lambda: [("report.html", page.render(sweep, tables).encode())],
    }
    return [file for name in FORMATS if name in chosen for file in make[name]()]


def pictures(tables: Sequence[Table], suffix: str) -> list[tuple[str, bytes]]:
    names = curve_names(tables)
    return [
        (f"{name}.{suffix}", curves.draw(table, suffix))
        for name, table in zip(names, tables, strict=True)
    ]


def curve_names(tables: Sequence[Table]) -> list[str]:
    """`fid-cifar10-n1000`: each title in plain characters, numbered where not unique."""
    names: list[str] = []
    for table in tables:
        title = table.title.lower().replace(f"n = {table.n:,}", f"n{table.n}")
        name = "-".join(re.findall("[a-z0-9_.]+", title))[:80].lstrip(".-")
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def write(path: Path, data: bytes) -> Path:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return path
