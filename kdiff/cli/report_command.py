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
from kdiff.eval.report import (
    Sweep,
    Table,
    across,
    curves,
    formats,
    has_lines,
    make_tables,
    page,
    read_sweep,
    within,
)
from kdiff.eval.report.across import NFE
from kdiff.eval.report.plots import Plot, plots
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
@click.option(
    "--x",
    "named",
    multiple=True,
    metavar="OPTION",
    help="Against what: nfe, or an option such as scale, cfg:scale or eta; may be repeated.  "
    "[default: nfe, and each option of guidance that varies]",
)
def command(
    folder: Path,
    out: Path | None,
    wanted: str,
    metrics: tuple[str, ...],
    samplers: str | None,
    budget: str | None,
    named: tuple[str, ...],
) -> None:
    """Write what the sweep in DIR found, as far as it is: tables, curves, and report.html, which
    holds everything and opens from disk. Print the tables as Markdown."""
    with usage_errors():
        chosen = choose_formats(wanted)
        budgets = [] if budget is None else as_budgets("--budget", budget)
        sweep = read_sweep(folder, partial(click.echo, err=True))
        if samplers is not None:
            sweep = choose_samplers(sweep, as_list("--sampler", samplers))
        tables = choose_tables(sweep, choose_metrics(sweep, metrics), named)
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


def choose_tables(sweep: Sweep, metrics: Sequence[str], names: Sequence[str]) -> list[Table]:
    """By what these name; if there are none, by NFE, and by each option of guidance that gives a
    line. Errors as `across.named`."""
    if names:
        chosen = dict.fromkeys(across.named(sweep, name).name for name in names)
        every = [across.named(sweep, name) for name in chosen]
        return [table for one in every for table in make_tables(sweep, metrics, one)]
    guided = [make_tables(sweep, metrics, one) for one in across.of_guidance(sweep)]
    lines = [table for tables in guided for table in tables if has_lines(table)]
    return [*make_tables(sweep, metrics), *lines]


def by_budget(tables: Sequence[Table], budgets: Sequence[int]) -> list[Table]:
    """Tables by NFE with these columns, if they have a figure in one; other tables as they are.
    ValueError if no table is by NFE, or none has a figure within a budget."""
    by_nfe = [table for table in tables if table.across is NFE]
    if tables and not by_nfe:
        raise ValueError("--budget is for tables by NFE: add --x nfe, or leave out --budget")
    laid = [short for table in by_nfe if (short := within(table, budgets)).rows]
    if tables and not laid:
        least = min(min(table.columns) for table in by_nfe)
        raise ValueError(f"no figure is within the budget; the least NFE is {least}")
    return [*laid, *(table for table in tables if table.across is not NFE)]


def documents(
    sweep: Sweep, tables: Sequence[Table], laid: Sequence[Table], chosen: Sequence[str]
) -> list[tuple[str, bytes]]:
    """Each file's name and content; `laid` are the tables as they are shown."""
    make: dict[str, Callable[[], list[tuple[str, bytes]]]] = {
        "csv": lambda: csv_files(tables),
        "md": lambda: [("tables.md", formats.to_markdown(laid).encode())],
        "latex": lambda: [("tables.tex", formats.to_latex(laid).encode())],
        "svg": lambda: pictures(plots(tables), "svg"),
        "png": lambda: pictures(plots(tables), "png"),
        "html": lambda: [("report.html", page.render(sweep, tables).encode())],
    }
    return [file for name in FORMATS if name in chosen for file in make[name]()]


def csv_files(tables: Sequence[Table]) -> list[tuple[str, bytes]]:
    """`tables.csv` by NFE, and `tables-by-cfg-scale.csv` by an option."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        by = "" if table.across is NFE else f"-by-{plain(table.across.name)[:80]}"
        found.setdefault(f"tables{by}.csv", []).append(table)
    found = found or {"tables.csv": []}
    return [(name, formats.to_csv(some).encode()) for name, some in found.items()]


def pictures(drawn: Sequence[Plot], suffix: str) -> list[tuple[str, bytes]]:
    names = curve_names([plot.title for plot in drawn])
    return [
        (f"{name}.{suffix}", curves.draw(plot, suffix))
        for name, plot in zip(names, drawn, strict=True)
    ]


def curve_names(titles: Sequence[str]) -> list[str]:
    """`fid-cifar10-n1000`: each title in plain characters, numbered where not unique."""
    names: list[str] = []
    for title in titles:
        name = plain(re.sub(r"n = ([\d,]+)", number, title.lower()))[:80].lstrip(".-")
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def number(n: re.Match[str]) -> str:
    """`n = 1,000` -> n1000."""
    return "n" + n[1].replace(",", "")


def plain(text: str) -> str:
    return "-".join(re.findall("[a-z0-9_.]+", text.lower()))


def write(path: Path, data: bytes) -> Path:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return path
