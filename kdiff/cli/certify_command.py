"""`kdiff certify`: what samplers claim, measured on exact models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from tqdm import tqdm

from kdiff.certificates import Certificate, certify
from kdiff.certificates.certifying import chosen
from kdiff.certificates.page import render
from kdiff.certificates.regressions import read, regressions, to_text
from kdiff.certificates.summary import HEADINGS, row
from kdiff.cli.grid_options import CONTEXT, usage_errors
from kdiff.cli.list_command import table
from kdiff.cli.outputs import check_free, writing
from kdiff.cli.paths import UserPath
from kdiff.files import whole_file


@click.command("certify", context_settings=CONTEXT)
@click.argument("names", nargs=-1, metavar="[SAMPLER]..")
@click.option("--json", "json_file", type=UserPath(), help="Write all figures here.")
@click.option("--html", "html_file", type=UserPath(), help="Write one page with curves here.")
@click.option(
    "--against",
    type=UserPath(exists=True, dir_okay=False),
    help="Fail on anything that is worse than in this file, which --json wrote.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace the files of --json and --html.")
def command(
    names: Sequence[str],
    json_file: Path | None,
    html_file: Path | None,
    against: Path | None,
    jobs: int | None,
    overwrite: bool,
) -> None:
    """Measure on exact models whether each SAMPLER (all by default, with those of other packages)
    is what it claims: its order, its evaluations, its errors, its moments, and what its results
    must not depend on. The status is 1 if one is not. docs/certificates.md explains each column."""
    for file in filter(None, [json_file, html_file]):
        check_free(file, overwrite)
    if json_file is not None and json_file == html_file:
        raise click.UsageError("--json and --html are two files: give them two names")
    with usage_errors("kdiff list samplers"):
        known = chosen(names or None)
        stored = [] if against is None else read(against)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(known), unit="sampler", leave=False))
        found = certify(known, jobs=jobs or cores(), watch=lambda one: advance(bar, one))
    plain = [one.as_dict() for one in found]
    for path, text in ((json_file, lambda: to_text(found)), (html_file, lambda: render(plain))):
        if path is not None:
            with writing(path), whole_file(path) as temporary:
                temporary.write_text(text(), "utf-8")
    click.echo(table([row(one) for one in plain], HEADINGS))
    wanted = [one for one in stored if not names or one["sampler"] in known]
    tell(found, regressions(wanted, plain))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def advance(bar: tqdm, one: Certificate) -> None:
    bar.set_postfix_str(one.sampler, refresh=False)
    bar.update()


def tell(found: Sequence[Certificate], worse: Sequence[str]) -> None:
    """What fails and what is worse, in words; then the status is 1."""
    failures = [f"{one.sampler}, {words}" for one in found for words in one.failures]
    if not failures and not worse:
        return
    click.echo("")
    for words in failures:
        click.echo(f"fails: {words}")
    for words in worse:
        click.echo(f"worse: {words}")
    click.get_current_context().exit(1)
