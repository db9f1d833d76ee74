"""`kdiff sweep`: many samplers, step counts, schedules and models, measured alike."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

import kdiff
from kdiff.cli.choices import DTYPES, choose_device
from kdiff.cli.errors import told
from kdiff.cli.evaluating import choose_evaluation, evaluation_options
from kdiff.cli.grid_options import CONTEXT, key_value, usage_errors
from kdiff.cli.lists import as_list, as_numbers
from kdiff.cli.paths import UserPath
from kdiff.cli.sweep_file import from_file
from kdiff.driver import State
from kdiff.eval import sweep
from kdiff.eval.evaluation import METRICS, Collector, all_metrics
from kdiff.eval.features import DEFAULT_FEATURES
from kdiff.eval.ranks import ranks, share, wait_for_all
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.cell import RMSE, Cell, Judge, ModelFile
from kdiff.eval.sweep.claims import WRITING, Claims
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.models import DEFAULT_MODEL, find_model, sha256
from kdiff.names import unknown_name
from kdiff.plans import DEFAULT_SAMPLER, DEFAULT_STEPS
from kdiff.samplers import UnknownName
from kdiff.schedules import FINALS


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
@click.option("--sampler", "samplers", default=DEFAULT_SAMPLER, help="Names, a list.")
@click.option("--steps", help=f"Numbers of steps, a list.  [default: {DEFAULT_STEPS}]")
@click.option("--nfe", help="Instead: the most steps for so many evaluations, a list.")
@click.option("--schedule", "schedules", help="karras, exponential .., a list.")
@click.option("--sigma-min", type=float, help="Lowest noise level.  [default: the model's]")
@click.option("--sigma-max", type=float, help="First noise level.  [default: the model's]")
@click.option("--rho", type=float, help="Curvature of the karras schedule.  [default: 7]")
@click.option(
    "--final", type=click.Choice(FINALS), default="zero", help="End at zero, or at sigma-min."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE[,VALUE..]",
    help="An option for the samplers that have it, such as eta=0,0.5; may be repeated. Any takes"
    " the place of all those in --file.",
)
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
    options: Sequence[str],
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
    **others: Any,
) -> None:
    """Measure every combination of samplers, steps, schedules, models and seeds.

    Each finished cell is a line in the folder's cells.jsonl. Stopped at any moment and called
    again, it goes on with the next batch: until a cell is finished, the folder "unfinished" keeps
    the features of its images (Inception: 8 kB an image). Cells that another call adds to the
    folder stand beside the first. `kdiff report` makes tables and curves of it.
    """
    evaluating = {key: others.pop(key) for key in ("ref", "features", "resize", "weights", "data")}
    where = choose_device(device)
    with usage_errors():
        judges, notes = choose_judges(choose_measures(metrics), num, where, evaluating)
        cells = sweep.expand(
            [model_file(name) for name in as_list("--model", models)],
            as_list("--sampler", samplers),
            sizes=choose_sizes(steps, nfe),
            schedules=[None] if schedules is None else as_list("--schedule", schedules),
            options=choose_options(options),
            n=num,
            first_seeds=as_numbers("--first-seed", first_seeds),
            judges=judges,
            warn=warn,
            **others,
            **dict[str, Any]({} if rho is None else {"rho": rho}),
        )
        sweep.check_judges(cells)
    folder = SweepFolder(out, parse_shard(shard))
    own = sweep.of_shard(cells, folder.shard)
    wanted = share([cell.key for cell in sweep.outstanding(own, folder, retry, warn)])
    todo = [cell for cell in own if cell.key in wanted]
    if dry_run:
        click.echo(describe(cells, todo))
        return
    if ranks()[0] == 0:
        prepare_folder(out)
        settings = {k: as_plain(v) for k, v in ctx.params.items() if k not in ("retry", "dry_run")}
        with usage_errors(), Claims(out) as claims, claims.hold(WRITING):
            folder.add_command(command_record(settings))
    wait_for_all()
    try:
        compute(todo, folder, batch, where)
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


# --- what the options say ---


def choose_sizes(steps: str | None, nfe: str | None) -> list[dict[str, int]]:
    if steps is not None and nfe is not None:
        raise ValueError("give only one of --steps and --nfe")
    if nfe is not None:
        return [{"nfe": n} for n in as_numbers("--nfe", nfe)]
    return [
        {"steps": n} for n in as_numbers("--steps", str(DEFAULT_STEPS) if steps is None else steps)
    ]


def choose_options(words: Sequence[str]) -> dict[str, list[str]]:
    """`eta=0,0.5` -> {"eta": ["0", "0.5"]}, what is given twice put together."""
    chosen: dict[str, list[str]] = {}
    for key, values in map(key_value, words):
        chosen.setdefault(key, []).extend(as_list(f"--option {key}", values))
    return chosen


def choose_measures(text: str) -> list[tuple[str, str | None]]:
    """Each metric once and known, in the order of METRICS, and the network that it is of, None if
    all; `none` is an empty list: NFE and seconds only."""
    wanted = []
    for part in as_list("--metrics", text):
        name, at, network = part.partition("@")
        wanted.append((name.lower(), network if at else None))
    if wanted == [("none", None)]:
        return []
    known = [*all_metrics(), RMSE]
    for metric, of in wanted:
        if metric not in known:
            raise UnknownName(unknown_name("metric", metric, known))
        if metric == RMSE and of is not None:
            raise ValueError(f"{RMSE} looks through no network: leave out @{of}")
    return sorted(set(wanted), key=lambda one: (known.index(one[0]), one[1] or ""))


def choose_judges(
    wanted: Sequence[tuple[str, str | None]],
    n: int,
    device: torch.device,
    evaluating: Mapping[str, Any],
) -> tuple[list[Judge], list[str]]:
    """A judge for each feature network that has something to look at, or else a single one, and
    notes on their references. ValueError if one of the metrics cannot be had from these."""
    names = list(dict.fromkeys(as_list("--features", evaluating["features"])))
    for metric, of in wanted:
        if of not in (None, *names):
            raise ValueError(f"{metric}@{of}: {of!r} is none of --features {','.join(names)}")
    judges, notes = [], []
    for name in names:
        metrics = tuple(dict.fromkeys(metric for metric, of in wanted if of in (None, name)))
        judged = [metric for metric in metrics if metric != RMSE]
        if not judged:
            continue
        chosen = {**evaluating, "features": name}
        if name != DEFAULT_FEATURES and DEFAULT_FEATURES in names:  # they are that one's
            chosen |= {"resize": None, "weights": None}
        network, reference, remarks = choose_evaluation(judged, device, **chosen)
        Collector(judged, n, network, reference)
        judges.append(Judge(metrics, network, reference))
        notes += remarks
    return judges or [Judge(tuple(metric for metric, _ in wanted))], notes


def model_file(name: str) -> ModelFile:
    path = find_model(name)
    return ModelFile(name, path, sha256(path))


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """`2/4` -> (2, 4)."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.UsageError(f"--shard takes I/N with I from 1 to N, such as 1/4, not {text!r}")
    return int(i), int(n)


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


def as_plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


# --- what is shown ---


def warn(text: str) -> None:
    if ranks()[0] == 0:
        click.echo(text, err=True)


def describe(cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    """The cells, those to be computed marked, and what they cost."""
    keys = {cell.key for cell in todo}
    rows = [f"{'+' if c.key in keys else ' '} {c.key}  {c.model.name}, {c}" for c in cells]
    nfe = sum(cell.plan.nfe or 0 for cell in todo)
    images = len(cells[0].seeds)
    total = (
        f"{len(todo)} of {len(cells)} cells to compute (+): NFE {nfe}, "
        f"for {images} images each {nfe * images:,} evaluations before sharing"
    )
    return "\n".join([*rows, total])


def compute(cells: Sequence[Cell], folder: SweepFolder, batch: int, device: torch.device) -> None:
    """Run the cells under a progress bar."""
    rank, _ = ranks()
    with tqdm(total=0, unit="image", disable=None if rank == 0 else True) as bar:
        progress = Progress(cells, bar)
        for line in sweep.run(
            cells,
            folder,
            batch=batch,
            device=device,
            callback=progress.watch,
            resumed=progress.resumed,
            tell=warn,
        ):
            progress.finished(line)


class Progress:
    """A bar over all evaluations, which remaining time goes by, that shows cells and images/s."""

    def __init__(self, cells: Sequence[Cell], bar: tqdm):
        self.cells, self.bar = {cell.key: cell for cell in cells}, bar
        self.counted = dict.fromkeys(self.cells, 0)
        self.images, self.done, self.began = 0.0, 0, time.monotonic()
        bar.bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        bar.reset(sum(map(self.cost, cells)))
        self.show()

    @staticmethod
    def cost(cell: Cell) -> int:
        """Evaluations, counted image by image: this process's share."""
        return (cell.plan.nfe or 0) * len(cell.seeds) // ranks()[1]

    def watch(self, cell: Cell | None, state: State) -> None:
        if cell is None:
            text = f"converged solution, step {state.step} of {converged.STEPS}"
            self.bar.set_postfix_str(text)
        elif state.step < cell.plan.steps:  # the last state is no evaluation
            self.count(cell, len(state.x))
            self.images += len(state.x) / (cell.plan.nfe or 1)
            self.show()

    def resumed(self, cell: Cell, images: int) -> None:
        self.count(cell, images * (cell.plan.nfe or 0))

    def finished(self, line: Mapping[str, Any]) -> None:
        cell = self.cells[line["key"]]
        self.count(cell, self.cost(cell) - self.counted[cell.key])
        self.done += 1
        if line["status"] == "failed":
            self.bar.write(f"failed: {cell}: {line['error']}")
        self.show()

    def count(self, cell: Cell, evaluations: int) -> None:
        self.counted[cell.key] += evaluations
        self.bar.update(evaluations)

    def show(self) -> None:
        rate = self.images / max(time.monotonic() - self.began, 1e-9)
        text = f"{self.done} of {len(self.cells)} cells, {rate:.1f} images/s"
        self.bar.set_postfix_str(text, refresh=False)


def table(cells: Sequence[Cell], lines: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a set of images, a column a metric; where no cell has any, seconds."""
    found = [lines.get(cell.key) for cell in cells]
    names = list(dict.fromkeys(name for line in found if line for name in line["metrics"]))
    names = names or ["seconds"]
    heads: dict[str, Callable[[Cell], str]] = {
        "model": lambda cell: cell.model.name,
        "seeds": lambda cell: f"from {cell.seeds.start}",
        "sampler": lambda cell: cell.row,
        "schedule": lambda cell: cell.plan.schedule,
        "steps": lambda cell: str(cell.plan.steps),
        "NFE": lambda cell: str(cell.plan.nfe),
    }
    for name in ("model", "seeds"):
        if len({heads[name](cell) for cell in cells}) == 1:
            del heads[name]
    rows = []
    for _, of_images in groupby(cells, lambda cell: cell.images):
        same = list(of_images)
        row = [text(same[0]) for text in heads.values()]
        rows.append([*row, *(shown([lines.get(c.key) for c in same], name) for name in names)])
    rows.insert(0, [*heads, *names])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = list(heads).index("steps")
    return "\n".join("  ".join(aligned(row, widths, words)) for row in rows)


def aligned(row: Sequence[str], widths: Sequence[int], words: int) -> list[str]:
    """The first so many, which are words, on the left of their columns, numbers on the right."""
    cells = zip(row, widths, strict=True)
    return [f"{text:{'<' if i < words else '>'}{width}}" for i, (text, width) in enumerate(cells)]


def shown(same: Sequence[Mapping[str, Any] | None], name: str) -> str:
    """The figure, wherever it is among the lines of the same images."""
    for line in same:
        if line is not None and name in line["metrics"]:
            return f"{line['metrics'][name]['value']:.4g}"
    return "failed" if any(line and line["status"] == "failed" for line in same) else ""
