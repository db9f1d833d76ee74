"""`kdiff sweep`: many samplers, step counts, schedules and models, measured alike."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

import kdiff
from kdiff.cli import sweep_choices as choices
from kdiff.cli.choices import DTYPES, choose_device
from kdiff.cli.errors import told
from kdiff.cli.evaluating import evaluation_options
from kdiff.cli.grid_options import CONTEXT, given_sigmas, usage_errors
from kdiff.cli.lists import as_list, as_numbers
from kdiff.cli.modification_options import SEE_EDITS, SEE_GUIDANCE
from kdiff.cli.paths import UserPath
from kdiff.cli.prompt_options import OF_PROMPTS, prompt_options, settled
from kdiff.cli.sweep_file import from_file
from kdiff.cli.sweep_progress import Progress
from kdiff.cli.sweep_table import describe, table
from kdiff.editing import EDITS, guiding
from kdiff.eval import sweep
from kdiff.eval.evaluation import METRICS
from kdiff.eval.ranks import ranks, share, wait_for_all
from kdiff.eval.sweep import RMSE, Cell, Models, ModelSpec, SweepFolder
from kdiff.eval.sweep.claims import WRITING, Claims
from kdiff.models import DEFAULT_MODEL
from kdiff.modifications import Modification
from kdiff.plans import DEFAULT_SAMPLER, DEFAULT_STEPS
from kdiff.text import Request


@click.command("sweep", context_settings=CONTEXT)
@click.option(
    "--file",
    type=UserPath(exists=True, dir_okay=False),
    callback=from_file,
    is_eager=True,
    expose_value=False,
    help="YAML with these options' names as keys; the command line goes first.",
)
@click.option("--model", "models", default=DEFAULT_MODEL, help="Names or files, a list.")
@click.option(
    "--sampler", "samplers", default=DEFAULT_SAMPLER, help="Names, a list; as for sample."
)
@click.option("--steps", help=f"Numbers of steps, a list.  [default: {DEFAULT_STEPS}]")
@click.option("--nfe", help="Instead: the most steps for so many evaluations, a list.")
@click.option("--schedule", "schedules", help="karras, exponential .., a list.")
@click.option(
    "--sigmas",
    help="Instead of all of these: one grid for all cells, as for sample. Several grids are"
    " schedules of a plug-in, or tableaux (--sampler t.json).",
)
@click.option("--sigma-min", type=float, help="Lowest noise level.  [default: the model's]")
@click.option("--sigma-max", type=float, help="First noise level.  [default: the model's]")
@click.option("--rho", type=float, help="Curvature of the karras schedule.  [default: 7]")
@click.option("--final", help="End at zero, or at sigma_min, a list.  [default: zero]")
@click.option(
    "--first",
    help="analytic: the first answer is made of the data's mean and spread, without an evaluation;"
    " or none, a list.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE[,VALUE..]",
    help="An option for the samplers that have it, such as eta=0,0.5; may be repeated. Any takes"
    " the place of all those in --file.",
)
@click.option(
    "--guide",
    "guides",
    multiple=True,
    metavar="NAME:KEY=VALUE[,VALUE..]",
    help="Guide the models, such as cfg:scale=1,1.5,3: a cell for each value. Several compose, the"
    " first innermost.",
)
@click.option(
    "--guidance",
    metavar="SCALE[,SCALE..]",
    help="Short for --guide cfg:scale=SCALE, which stands before all others, a list; 1 is none.",
)
@click.option(
    "--negative-label",
    help="Class that guides lead away from, instead of no class, or a list for images to take in"
    " turn.",
)
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME:KEY=VALUE[,VALUE..]",
    help="Edit the samplers' course; lists and several as for --guide.",
)
@prompt_options
@click.option("--num", type=click.IntRange(1), default=1000, help="Images in a cell.")
@click.option("--first-seed", "first_seeds", default="0", help="A list: each repeats every cell.")
@click.option(
    "--metrics",
    default="fid,rmse",
    help=f"A list of {', '.join([*METRICS, RMSE])}, such as fid,is@NETWORK, which is of that one of"
    " several networks; or none.",
)
@evaluation_options
@click.option("--batch", type=click.IntRange(1), default=64, help="Images computed together.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", help="The model's.")
@click.option("--deterministic", is_flag=True, help="Same images whatever the batch.")
@click.option("--shard", metavar="I/N", help="Only every N-th cell, from the I-th on.")
@click.option("--retry", is_flag=True, help="Compute cells again that failed.")
@click.option("--dry-run", is_flag=True, help="Only show which cells there are.")
@click.option("--out", type=UserPath(), default=Path("sweep"), help="Folder.")
@click.pass_context
def command(
    ctx: click.Context,
    models: str,
    samplers: str,
    steps: str | None,
    nfe: str | None,
    schedules: str | None,
    final: str | None,
    first: str | None,
    options: Sequence[str],
    guides: Sequence[str],
    guidance: str | None,
    negative_label: str | None,
    edits: Sequence[str],
    request: Request | None,
    num: int,
    first_seeds: str,
    metrics: str,
    batch: int,
    device: str | None,
    shard: str | None,
    retry: bool,
    dry_run: bool,
    out: Path,
    rho: float | None,
    sigmas: str | None,
    **others: Any,
) -> None:
    """Measure every combination of samplers, steps, schedules, models and seeds.

    Each finished cell is a line in the folder's cells.jsonl. Stopped at any moment and called
    again, it goes on with the next batch: until a cell is finished, the folder "unfinished" keeps
    the features of its images (Inception: 8 kB an image). Cells that another call adds to the
    folder stand beside the first. `kdiff report` makes tables and curves of it.
    """
    evaluating = {key: others.pop(key) for key in ("ref", "features", "resize", "weights", "data")}
    where, loaded = choose_device(device), Models()
    with usage_errors(SEE_GUIDANCE):
        guided = choices.choose_guides(guidance, guides)
    with usage_errors(SEE_EDITS):
        edited = choices.choose_modifications(EDITS, edits)
    several = [[*own, *guiding(some)] for own in guided for some in edited]
    with usage_errors():
        measures = choices.choose_measures(metrics)
        judges, notes = choices.choose_judges(measures, num, where, evaluating)
        cells = sweep.expand(
            [choose_spec(name, request, several, loaded) for name in as_list("--model", models)],
            as_list("--sampler", samplers),
            sizes=choices.choose_sizes(steps, nfe),
            schedules=[None] if schedules is None else as_list("--schedule", schedules),
            ends=choices.choose_ends(final, first),
            options=choices.choose_options(options),
            guides=guided,
            edits=edited,
            negative=negative_label,
            n=num,
            first_seeds=as_numbers("--first-seed", first_seeds),
            judges=judges,
            models=loaded,
            warn=warn,
            **others,
            **dict[str, Any]({} if rho is None else {"rho": rho}),
            **dict[str, Any]({} if sigmas is None else {"sigmas": given_sigmas(sigmas, final)}),
        )
        sweep.check_judges(cells, loaded)
    folder = SweepFolder(out, choices.choose_shard(shard))
    own = sweep.of_shard(cells, folder.shard)
    wanted = share([cell.key for cell in sweep.outstanding(own, folder, retry, warn)])
    todo = [cell for cell in own if cell.key in wanted]
    if dry_run:
        click.echo(describe(cells, todo))
        return
    if ranks()[0] == 0:
        prepare_folder(out)
        with usage_errors(), Claims(out) as claims, claims.hold(WRITING):
            said = {**ctx.params, "final": final or "zero"}
            folder.add_command(command_record(settings_of(said)))
    wait_for_all()
    try:
        compute(todo, folder, batch, where, loaded)
    except OSError as error:
        check_there(out)
        named = "" if error.filename else f"{out}: "  # a full disk has no name
        raise click.ClickException(f"{named}{told(error)}") from error
    except KeyboardInterrupt:
        raise click.ClickException(
            f"stopped; the same command goes on with the next batch: "
            f"{len(folder.lines())} cells in {out} are finished"
        ) from None
    if ranks()[0] == 0:
        check_there(out)
        lines = folder.lines()
        click.echo("\n".join([table(cells, lines), *notes]))
        click.echo(f"\nkdiff report {out}  makes tables, curves and pictures of it")
        failed = sum(lines.get(cell.key, {}).get("status") == "failed" for cell in own)
        if failed:
            raise click.ClickException(f"{failed} cells failed; --retry computes them again")


def choose_spec(
    name: str,
    request: Request | None,
    several: Iterable[Sequence[Modification]],
    loaded: Models,
) -> ModelSpec:
    """The model of that name, with what it is asked. Errors as `settled`."""
    spec = choices.choose_model(name)
    _, text = settled(loaded.load(spec), request, *several)
    return replace(spec, text=text)


# --- running ---


def compute(
    cells: Sequence[Cell], folder: SweepFolder, batch: int, device: torch.device, models: Models
) -> None:
    """Run the cells under a progress bar."""
    rank, _ = ranks()
    with tqdm(total=0, unit="image", disable=None if rank == 0 else True) as bar:
        progress = Progress(cells, bar)
        for line in sweep.run(
            cells,
            folder,
            batch=batch,
            device=device,
            models=models,
            callback=progress.watch,
            resumed=progress.resumed,
            tell=warn,
        ):
            progress.finished(line)


def warn(text: str) -> None:
    if ranks()[0] == 0:
        click.echo(text, err=True)


# --- the folder ---


def prepare_folder(out: Path) -> None:
    """Make it, unless it is a sweep's already. click.UsageError if it is something else's."""
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out {out} is a file, not a folder")
    visible = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if visible and not (out / "sweep.json").exists():
        raise click.UsageError(f"{out} is not empty, and no sweep's folder: choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"cannot make the folder {out}: {error.strerror}") from error


def check_there(out: Path) -> None:
    """After what was computed. click.ClickException if somebody has removed it meanwhile."""
    if not (out / "sweep.json").is_file():
        raise click.ClickException(f"{out} was removed or emptied while the sweep ran")


def command_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": shlex.join(["kdiff", *sys.argv[1:]]),
        "settings": settings,
        "kdiff": kdiff.__version__,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def settings_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the cells and where they are; what older commands did not have only if it is
    given, so that their records are equal."""
    newer = ("guides", "guidance", "negative_label", "edits", "first", *OF_PROMPTS)
    return {
        key: as_plain(value)
        for key, value in params.items()
        if key not in ("retry", "dry_run") and (value not in (None, ()) or key not in newer)
    }


def as_plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
