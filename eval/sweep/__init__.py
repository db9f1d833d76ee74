"""Sweeps: from a description to cells, and from cells to lines in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch

import kdiff
from kdiff.counts import seed_number, whole_number
from kdiff.denoiser import Denoiser
from kdiff.driver import State
from kdiff.environment import environment
from kdiff.eval.evaluation import Collector, Figure
from kdiff.eval.images.from_model import MOST_IMAGES, every_class, three_channels
from kdiff.eval.metrics import frechet
from kdiff.eval.ranks import gather, ranks
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.cell import RMSE, Cell, Judge, ModelFile
from kdiff.eval.sweep.cell_line import is_finished
from kdiff.eval.sweep.claims import WRITING, Claims
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.eval.sweep.partial_cells import Portion, Unfinished
from kdiff.eval.sweep.turns import turns
from kdiff.files import to_json
from kdiff.images import to_uint8
from kdiff.latent import check_pictures
from kdiff.lockstep import Outcome, lockstep
from kdiff.names import unknown_name
from kdiff.plans import Plan, plan
from kdiff.ranges import beginning
from kdiff.samplers import UnknownName, resolve

Decode = Callable[[torch.Tensor], torch.Tensor]
Watch = Callable[[Cell | None, State], None]
Resumed = Callable[[Cell, int], None]

PICTURES, CONVERGED = 16, 64  # how many of the first seeds are shown, and compared with the ODE


# --- from a description to cells ---


def expand(
    models: Sequence[ModelFile],
    samplers: Sequence[str],
    *,
    sizes: Sequence[Mapping[str, int]],
    schedules: Sequence[str | None] = (None,),
    options: Mapping[str, Sequence[Any]] | None = None,
    n: int,
    first_seeds: Sequence[int] = (0,),
    judges: Sequence[Judge],
    dtype: str = "float32",
    deterministic: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    **grid: Any,
) -> list[Cell]:
    """Every combination, each once.

    `sizes` are {"steps": 10} or {"nfe": 10}; `options` have one or more values each and apply to
    the samplers that have them; each of the `judges` looks at all images; `grid` (final, sigma_min
    ..) is for all, as in `kdiff.plan`; `warn` is told of models whose schedules begin below the end
    of their table.
    ValueError if any combination is impossible or an option is no sampler's.
    """
    check_seeds(n, first_seeds)
    check_options(samplers, options or {})
    cells: dict[str, Cell] = {}
    for file, first in product(models, first_seeds):
        model = kdiff.load(file.path)
        check_pictures(model)
        said = beginning(model)
        if said and first == first_seeds[0] and grid.get("sigma_max") is None:
            warn(f"Note: {file.name}: {said}")
        _, labels = every_class(model, n)
        every = plans(model, samplers, schedules, sizes, options or {}, grid)
        for chosen, judge in product(every, judges):
            ode = not chosen.sampler.stochastic(chosen.options)
            measured = tuple(name for name in judge.metrics if name != RMSE or ode)
            cell = Cell(
                file,
                chosen,
                range(first, first + n),
                labels,
                dtype,
                deterministic,
                measured,
                judge.network,
                judge.reference,
            )
            cells.setdefault(cell.key, cell)
    if any(j.metrics for j in judges) and not any(cell.metrics for cell in cells.values()):
        raise ValueError("RMSE is to the solution of the ODE, but all these samplers add noise")
    return list(cells.values())


def plans(
    model: Denoiser,
    samplers: Sequence[str],
    schedules: Sequence[str | None],
    sizes: Sequence[Mapping[str, int]],
    options: Mapping[str, Sequence[Any]],
    grid: Mapping[str, Any],
) -> Iterator[Plan]:
    """Every combination, with the options that each sampler has."""
    for name, schedule, size in product(samplers, schedules, sizes):
        known = {option.lower() for option in resolve(name).sampler.options}
        own = {key: values for key, values in options.items() if key.lower() in known}
        for values in product(*own.values()):
            some = dict(zip(own, values, strict=True))
            yield plan(model, name, schedule=schedule, options=some, **{**grid, **size})


def check_options(samplers: Sequence[str], options: Mapping[str, Any]) -> None:
    known = {o for name in samplers for o in resolve(name).sampler.options}
    for key in options:
        if key.lower() not in {o.lower() for o in known}:
            raise UnknownName(unknown_name("option of these samplers", key, sorted(known)))


def check_seeds(n: int, first_seeds: Sequence[int]) -> None:
    whole_number("the number of images in a cell", n, 1, MOST_IMAGES)
    ordered = sorted(seed_number(first) for first in first_seeds)
    seed_number(ordered[-1] + n - 1)
    for a, b in pairwise(ordered):
        if b - a < n:
            raise ValueError(
                f"repeats from seeds {a} and {b} would share images: let them be {n} apart"
            )


def check_judges(cells: Sequence[Cell]) -> None:
    """Judge one image of noise as each model's will be. ValueError, in one line, if that fails, as
    it does with a reference of another dimension, or a network for images of another size."""
    every = {(cell.model, cell.network, cell.reference): cell for cell in cells if cell.judged}
    for cell in every.values():
        model = kdiff.load(cell.model.path)
        noise = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
        try:
            judge(cell).update(three_channels(to_uint8(model.decode(noise))), [0])
        except Exception as error:  # whatever is wrong, it would be so with every cell
            raise ValueError(f"{cell.model.name}: {one_line(error)}") from error


# --- from cells to lines ---


@dataclass
class Tally:
    """What a process has of a cell so far; those of two processes add up."""

    collector: Collector | None
    samples: dict[int, np.ndarray] = field(default_factory=dict)  # the first, by number
    error: str | None = None
    seconds: float = 0.0

    def update(self, outcome: Outcome, indices: Sequence[int], decode: Decode) -> Portion | None:
        """Add a batch, and return what it adds. What goes wrong is kept, and ends the cell."""
        if outcome.x is None:
            self.error = self.error or one_line(outcome.error)
        if self.error is not None or outcome.x is None:
            return None
        few = sum(i < max(PICTURES, CONVERGED) for i in indices)
        try:
            features = None
            if self.collector is not None:
                features = self.collector.look(three_channels(to_uint8(decode(outcome.x))))
            portion = Portion(features, outcome.x[:few].cpu().numpy().copy(), outcome.seconds)
            self.add(portion, indices)
        except Exception as error:  # the sweep goes on, whatever is wrong with one cell
            self.error = one_line(error)
            return None
        return portion

    def add(self, portion: Portion, indices: Sequence[int]) -> None:
        """Add what `update` returned."""
        self.seconds += portion.seconds
        self.samples |= dict(zip(indices, portion.samples, strict=False))  # the first of them
        if self.collector is not None and portion.features is not None:
            self.collector.add(portion.features, indices)

    def __add__(self, other: Tally) -> Tally:
        error = self.error or other.error
        collector = self.collector
        if error is None and collector is not None and other.collector is not None:
            collector = collector + other.collector
        samples = self.samples | other.samples
        return Tally(collector, samples, error, self.seconds + other.seconds)

    def first(self, n: int) -> np.ndarray:
        """The samples 0 to n - 1, or all if there are fewer: `[n, *shape]`."""
        return np.stack([self.samples[i] for i in sorted(self.samples)[:n]])


def of_shard(cells: Sequence[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """The cells of shard (i, n), each with all others of its images, in the order in which to
    compute them: cells of the same images, then those on one grid, which share most, side by
    side."""

    def grid(cell: Cell) -> tuple[Any, ...]:
        chosen = cell.plan
        return (
            *(cell.model.name, cell.seeds.start, chosen.steps, chosen.schedule),
            *(to_json(chosen.record(), indent=None), cell.images, cell.key),
        )

    i, n = shard or (1, 1)
    ordered = sorted(cells, key=grid)
    own = set(list(dict.fromkeys(cell.images for cell in ordered))[i - 1 :: n])
    return [cell for cell in ordered if cell.images in own]


def outstanding(
    cells: Sequence[Cell],
    folder: SweepFolder,
    retry: bool = False,
    warn: Callable[[str], None] | None = None,
) -> list[Cell]:
    """Those that have no line in the folder yet; with `retry` also those that failed. `warn` gets a
    text for each line in the folder that is no cell."""
    lines = folder.lines(warn)
    failed = {k for k, line in lines.items() if line["status"] == "failed" and not retry}
    settled = failed | {k for k, line in lines.items() if is_finished(line)}
    return [cell for cell in cells if cell.key not in settled]


def run(
    cells: Sequence[Cell],
    folder: SweepFolder,
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    callback: Watch | None = None,
    resumed: Resumed | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Compute the cells, groups of them in lockstep, and yield each one's line once it is written.
    Under torchrun the processes share each cell's batches, and only the first writes and yields.

    `callback` gets each `State`, and its cell: None for a converged solution. A cell that fails
    gets a line that says so; OSError if the folder cannot be written to. What it has of cells under
    way is kept there, and a call with the same `batch` goes on from it: `resumed` gets the cell and
    the number of images of each batch that an earlier call computed.

    Other calls may compute the same cells in the folder at the same time: each takes others, waits
    for theirs, which it says by `tell`, yields their lines, and takes over what a dead one leaves.
    """
    batch = whole_number("batch", batch, 1)
    watch = callback or (lambda cell, state: None)
    resume = resumed or (lambda cell, images: None)
    unfinished = Unfinished(folder.path, environment(device))
    unfinished.remove(key for key, line in folder.lines().items() if is_finished(line))
    with Claims(folder.path) as claims:
        for turn in turns(cells, folder, claims, tell or (lambda text: None)):
            yield from turn.others
            if not turn.cells:
                continue
            model = kdiff.load(turn.cells[0].model.path)
            model.to(device, getattr(torch, turn.cells[0].dtype))
            tallies = sample(turn.cells, model, unfinished, batch, watch, resume)
            for cell, part in zip(turn.cells, tallies, strict=True):
                tally = gather(part)
                if tally is not None:
                    line = finish(cell, tally, model, folder, batch, watch)
                    if claims.holds(cell.images):
                        with claims.hold(WRITING):
                            folder.append(line)
                        unfinished.remove([cell.key])
                        yield line
    unfinished.close()


def sample(
    group: Sequence[Cell],
    model: Denoiser,
    unfinished: Unfinished,
    batch: int,
    watch: Watch,
    resume: Resumed,
) -> list[Tally]:
    """This process's share: of each cell, every world-th batch, unless the disk has it already."""
    tallies = [Tally(judge(cell) if cell.judged else None) for cell in group]
    seeds = group[0].seeds
    rank, world = ranks()
    for start in range(rank * batch, len(seeds), world * batch):
        indices = range(start, min(start + batch, len(seeds)))
        todo = []
        for cell, tally in zip(group, tallies, strict=True):
            portion = unfinished.load(cell.key, indices)
            if portion is not None:
                tally.add(portion, indices)
                resume(cell, len(indices))
            elif tally.error is None:
                todo.append((cell, tally))
        outcomes = compute([cell for cell, _ in todo], model, indices, watch) if todo else []
        for (cell, tally), outcome in zip(todo, outcomes, strict=True):
            portion = tally.update(outcome, indices, model.decode)
            if portion is not None:
                unfinished.save(cell.key, indices, portion)
    return tallies


def compute(
    cells: Sequence[Cell], model: Denoiser, indices: Sequence[int], watch: Watch
) -> Sequence[Outcome]:
    """The images with these numbers, of each cell, as one batch."""
    seeds = cells[0].seeds
    labels, _ = every_class(model, len(seeds))
    (together,) = lockstep(
        model,
        [cell.plan for cell in cells],
        [seeds[i] for i in indices],
        batch=len(indices),
        deterministic=cells[0].deterministic,
        cond={"class_labels": labels and [labels[i] for i in indices]},
        callback=lambda i, state: watch(cells[i], state),
    )
    return together.outcomes


def judge(cell: Cell) -> Collector:
    """What looks at the cell's images."""
    assert cell.network is not None
    return Collector(cell.judged, len(cell.seeds), cell.network, cell.reference)


def finish(
    cell: Cell, tally: Tally, model: Denoiser, folder: SweepFolder, batch: int, watch: Watch
) -> dict[str, Any]:
    """The cell's line, after its grid is written."""
    line = {
        "key": cell.key,
        "cell": cell.record,
        "status": "failed",
        "error": tally.error,
        "metrics": {},
        "grid": None,
        "noise_floor": None,
        "converged": None,
        "environment": environment(model.device),
    }
    if tally.error is None:
        try:
            line |= {**measured(cell, tally, model, folder, batch, watch), "status": "ok"}
        except OSError:
            raise
        except Exception as error:  # the sweep goes on, whatever is wrong with one cell
            line["error"] = one_line(error)
    return {**line, "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def measured(
    cell: Cell, tally: Tally, model: Denoiser, folder: SweepFolder, batch: int, watch: Watch
) -> dict[str, Any]:
    """What a line has if all went well."""
    figures = tally.collector.figures() if tally.collector is not None else {}
    made = None
    if RMSE in cell.metrics:
        figures["RMSE"], made = distance(cell, tally, model, folder, batch, watch)
    figures["seconds"] = Figure(tally.seconds, None, len(cell.seeds))
    shown = torch.from_numpy(tally.first(PICTURES)).to(model.device)
    pictures = three_channels(to_uint8(model.decode(shown)))
    return {
        "metrics": {name: plain(figure) for name, figure in figures.items()},
        "noise_floor": noise_floor(cell),
        "converged": made,
        "grid": folder.save_grid(cell.key, pictures),
    }


def distance(
    cell: Cell, tally: Tally, model: Denoiser, folder: SweepFolder, batch: int, watch: Watch
) -> tuple[Figure, dict[str, Any]]:
    """The mean over seeds of the RMSE to the converged solution, with its standard error; and how
    that solution was made, and how far off it may be itself."""
    x = tally.first(CONVERGED)
    labels, _ = every_class(model, len(cell.seeds))
    solution = converged.cached(
        folder.path / "converged",
        {"model": cell.model.sha256, "dtype": cell.dtype, "device": model.device.type},
        model,
        converged.course(model, cell.plan),
        cell.seeds[: len(x)],
        labels and labels[: len(x)],
        batch=batch,
        callback=lambda state: watch(None, state),
    )
    each = converged.rmse(x, solution.x)
    error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None
    made = {"sampler": converged.SAMPLER, "steps": converged.STEPS, "error": solution.error}
    return Figure(float(each.mean()), error, len(each)), made


def noise_floor(cell: Cell) -> dict[str, float] | None:
    """What as many perfect samples would get for their Frechet distance."""
    if "fid" not in cell.metrics or cell.network is None or cell.reference is None:
        return None
    floor = frechet.noise_floor(cell.reference.gaussian, len(cell.seeds))
    return {cell.network.label("FID"): floor}


def plain(figure: Figure) -> dict[str, Any]:
    error = None if figure.error is None else float(figure.error)
    return {"value": float(figure.value), "error": error, "n": int(figure.n)}


def one_line(error: Exception | None) -> str:
    """An error's first line; of those that are not kdiff's own, with their kind."""
    text = (str(error).splitlines() or [""])[0]
    own = isinstance(error, (ArithmeticError, ValueError)) and text
    return text if own else f"{type(error).__name__}: {text}".removesuffix(": ")
