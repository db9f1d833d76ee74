"""`kdiff sample`: pictures from a model, and a record of how they were made."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from kdiff.cli.choices import (
    DTYPES,
    choose_device,
    choose_labels,
    load_with,
    network_errors,
    settings_option,
)
from kdiff.cli.grid_options import CONTEXT, choose_plan, grid_options, to_json, usage_errors
from kdiff.cli.modification_options import (
    choose_negative,
    guided_model,
    modification_options,
)
from kdiff.cli.paths import UserPath
from kdiff.cli.prompt_options import prompt_options, settled
from kdiff.cli.run_record import Taken, how_made, modified
from kdiff.cli.sample_folder import (
    beside,
    check_trajectory,
    new_folders,
    prepare_folder,
    remove_empty,
)
from kdiff.cli.seeds import choose_seeds
from kdiff.driver import State
from kdiff.editing import guiding
from kdiff.environment import environment
from kdiff.files import whole_file
from kdiff.images import grid as image_grid
from kdiff.images import save_animation, save_image, to_uint8
from kdiff.latent import check_pictures
from kdiff.model import network_nfe
from kdiff.models import DEFAULT_MODEL, find_model
from kdiff.modifications import Modification
from kdiff.plans import DEFAULT_SAMPLER, Plan
from kdiff.run_folder import OVERVIEW, RECORD, picture_name
from kdiff.sampling import run
from kdiff.text import Request


@click.command("sample", context_settings=CONTEXT)
@click.option("--model", "model_name", default=DEFAULT_MODEL, help="A model's name or its file.")
@settings_option
@click.option(
    "--sampler",
    default=DEFAULT_SAMPLER,
    help="Any name (`kdiff list samplers`), auto, or a tableau's file.",
)
@grid_options
@modification_options
@prompt_options
@click.option("--num", type=int, help="How many images.  [default: 16, or one a seed or prompt]")
@click.option(
    "--seed", type=int, help="Seed of the first image; the next has the next.  [default: 0]"
)
@click.option("--seeds", help="Instead of --seed: which seeds, such as 0-63 or 3,5,8-10.")
@click.option("--batch", type=int, default=64, help="Images computed together.")
@click.option(
    "--class-label",
    help="Name or number of a class, none, or a list of them to repeat.  [default: each in turn]",
)
@click.option("--out", type=UserPath(), default=Path("samples"), help="Folder.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Write into a folder that is not empty. An earlier run is deleted, other files stay.",
)
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", help="The network's.")
@click.option("--compile", "compile_", is_flag=True, help="torch.compile the network first.")
@click.option("--deterministic", is_flag=True, help="The same bits in any batch; slightly slower.")
@click.option("--trajectory", type=UserPath(), help="A GIF of the denoised images.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    model_name: str,
    settings: Sequence[str],
    sampler: str,
    num: int | None,
    seed: int | None,
    seeds: str | None,
    batch: int,
    class_label: str | None,
    negative_label: str | None,
    out: Path,
    overwrite: bool,
    device: str | None,
    dtype: str,
    compile_: bool,
    deterministic: bool,
    trajectory: Path | None,
    as_json: bool,
    guides: Sequence[Modification],
    request: Request | None,
    **grid: Any,
) -> None:
    """Make pictures with a model: one PNG a seed, grid.png, and run.json, which records how."""
    usual = len(request.prompts) if request and request.prompts else 16
    chosen = choose_seeds(num, seed, seeds, usual)
    if batch < 1:
        raise click.UsageError(f"--batch must be at least 1, not {batch}")
    check_trajectory(trajectory, out, overwrite)
    with usage_errors():
        loaded = load_with(find_model(model_name), settings)
        digest = loaded.record()["sha256"]
        check_pictures(loaded)
    loaded, asked = settled(loaded, request, [*guides, *guiding(grid["edits"])])
    model = guided_model(loaded, guides)
    labels = choose_labels(model, class_label, len(chosen))
    plan = choose_plan(model, sampler, **grid)
    negative = choose_negative(model, guides, plan.edits, labels, negative_label)
    cond = {"class_labels": labels, **negative}
    if trajectory is not None and plan.nfe is None:
        name = plan.sampler.name
        raise click.UsageError(f"{name} takes each image its own way: leave out --trajectory")
    where = choose_device(device)
    with usage_errors():
        told = asked.conditions(loaded, len(chosen), where, DTYPES[dtype]) if asked else {}
    new = new_folders(out)
    earlier = prepare_folder(out, overwrite)

    model.to(where, DTYPES[dtype])
    if compile_:
        model.compile()
    started = time.perf_counter()
    images: list[np.ndarray] = []
    try:
        with network_errors(model_name):
            films, taken = draw(
                *(model, plan, chosen, {**cond, **told}, out, images),
                *(batch, deterministic, trajectory, earlier),
            )
            seconds = time.perf_counter() - started
            record = {
                "model": model_name,
                "model_sha256": digest,
                **({"model_settings": list(settings)} if settings else {}),
                **plan.record(),
                **taken.record(),
                **modified(model),
                **({"text": asked.record()} if asked else {}),
                "seeds": chosen,
                "trajectory": beside(out, trajectory),
                **cond,
                "batch": batch,
                "deterministic": deterministic,
                "device": str(where),
                "dtype": dtype,
                "compile": compile_,
                "seconds": round(seconds, 3),
                "images_per_second": round(len(chosen) / seconds, 3),
                "environment": environment(where),
            }
            finish(out, images, trajectory, films, record)
    except click.ClickException:
        remove_empty(new)
        raise
    except KeyboardInterrupt:
        done = sum(map(len, images))
        raise click.ClickException(f"stopped: {done} of {len(chosen)} images in {out}") from None
    if as_json:
        click.echo(to_json({**record, "out": str(out)}))
    else:
        click.echo(
            f"{len(chosen)} images in {out}: {how_made(record)}, {seconds:.1f} s; "
            f"look at {out / OVERVIEW}"
        )


def draw(
    model: Any,
    plan: Plan,
    seeds: list[int],
    cond: Mapping[str, Any],
    out: Path,
    images: list[np.ndarray],
    batch: int,
    deterministic: bool,
    trajectory: Path | None,
    earlier: list[Path],
) -> tuple[list[list[np.ndarray]], Taken]:
    """Write a PNG a seed as each batch ends, and add the batch to `images`. The `earlier` files go
    when the first batch is there. Return, for a trajectory, each batch's denoised images, an array
    an evaluation, the last being the result; and what the run took."""
    runs = run(model, plan, seeds, batch=batch, deterministic=deterministic, cond=cond)
    films, taken = [], Taken()
    each = network_nfe(model, plan)
    total = None if each is None else each * math.ceil(len(seeds) / batch)
    with tqdm(total=total, unit="NFE", disable=None) as bar:
        for part, states in runs:
            film = []
            for state in watched(states, bar):
                if trajectory is not None:
                    film.append(to_uint8(model.decode(state.denoised)))
            taken.see(state)
            images.append(to_uint8(model.decode(state.x)))
            films.append([*film[:-2], images[-1]])
            while earlier:
                earlier.pop().unlink(missing_ok=True)
            for seed, image in zip(part, images[-1], strict=True):
                with whole_file(out / picture_name(seed)) as temporary:
                    save_image(image, temporary)
    return films, taken


def finish(
    out: Path,
    images: list[np.ndarray],
    trajectory: Path | None,
    films: list[list[np.ndarray]],
    record: dict[str, Any],
) -> None:
    """Write what covers all batches: grid.png, the trajectory, and last run.json."""
    with whole_file(out / OVERVIEW) as temporary:
        save_image(image_grid(np.concatenate(images)), temporary)
    if trajectory is not None:
        frames = [image_grid(np.concatenate(shots)) for shots in zip(*films, strict=True)]
        with whole_file(trajectory) as temporary:
            save_animation(frames, temporary)
    with whole_file(out / RECORD) as temporary:
        temporary.write_text(to_json(record) + "\n")


def watched(states: Iterator[State], bar: tqdm) -> Iterator[State]:
    """The same states, with their evaluations counted on the bar."""
    shown = 0
    for state in states:
        bar.update(state.nfe - shown)
        shown = state.nfe
        yield state
