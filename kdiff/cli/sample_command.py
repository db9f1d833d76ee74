"""`kdiff sample`: pictures from a model, and a record of how they were made."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

import kdiff
from kdiff.cli.choices import (
    DTYPES,
    choose_device,
    choose_labels,
    hash_with,
    load_with,
    network_errors,
    settings_option,
)
from kdiff.cli.grid_options import CONTEXT, grid_options, make_plan, to_json, usage_errors
from kdiff.cli.paths import UserPath
from kdiff.denoiser import Denoiser
from kdiff.driver import State
from kdiff.environment import environment
from kdiff.files import whole_file
from kdiff.images import grid as image_grid
from kdiff.images import save_animation, save_image, to_uint8
from kdiff.latent import check_pictures
from kdiff.models import DEFAULT_MODEL, find_model
from kdiff.plans import DEFAULT_SAMPLER
from kdiff.run_folder import OVERVIEW, RECORD, files_of_run, picture_name

MOST_IMAGES = 1_000_000


@click.command("sample", context_settings=CONTEXT)
@click.option("--model", "model_name", default=DEFAULT_MODEL, help="A model's name or its file.")
@settings_option
@click.option("--sampler", default=DEFAULT_SAMPLER, help="Any name; see `kdiff list samplers`.")
@grid_options
@click.option("--num", type=int, help="How many images.  [default: 16, or one a seed]")
@click.option(
    "--seed", type=int, help="Seed of the first image; the next has the next.  [default: 0]"
)
@click.option("--seeds", help="Instead: which seeds, such as 0-63 or 3,5,8-10.")
@click.option("--batch", type=int, default=64, help="Images computed together.")
@click.option(
    "--class-label",
    help="Name or number of a class, none, or a list of them to repeat.  [default: each in turn]",
)
@click.option("--out", type=UserPath(), default=Path("samples"), help="Folder.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Write into a folder that is not empty: the run that is in it goes, other files stay.",
)
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", help="Network's.")
@click.option("--compile", "compile_", is_flag=True, help="torch.compile the network first.")
@click.option("--deterministic", is_flag=True, help="Same bits whatever the batch; a bit slower.")
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
    out: Path,
    overwrite: bool,
    device: str | None,
    dtype: str,
    compile_: bool,
    deterministic: bool,
    trajectory: Path | None,
    as_json: bool,
    **grid: Any,
) -> None:
    """Make pictures with a model: one PNG a seed, grid.png, and run.json, which records how."""
    chosen = choose_seeds(num, seed, seeds)
    if batch < 1:
        raise click.UsageError(f"--batch must be at least 1, not {batch}")
    check_trajectory(trajectory, out, overwrite)
    with usage_errors():
        path = find_model(model_name)
        model, digest = load_with(path, settings), hash_with(path, settings)
        check_pictures(model)
    plan = make_plan(model, sampler, **grid)
    labels = choose_labels(model, class_label, len(chosen))
    where = choose_device(device)
    earlier = prepare_folder(out, overwrite)

    model.to(where, DTYPES[dtype])
    if compile_:
        model.compile()
    started = time.perf_counter()
    images: list[np.ndarray] = []
    try:
        with network_errors(model_name):
            films = draw(
                *(model, plan, chosen, labels, out, images),
                *(batch, deterministic, trajectory, earlier),
            )
            seconds = time.perf_counter() - started
            record = {
                "model": model_name,
                "model_sha256": digest,
                **({"model_settings": list(settings)} if settings else {}),
                **plan.record(),
                "seeds": chosen,
                "trajectory": beside(out, trajectory),
                "class_labels": labels,
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
    except KeyboardInterrupt:
        done = sum(map(len, images))
        raise click.ClickException(f"stopped: {done} of {len(chosen)} images in {out}") from None
    if as_json:
        click.echo(to_json({**record, "out": str(out)}))
    else:
        click.echo(
            f"{len(chosen)} images in {out}: {plan.sampler.name}, {plan.steps} steps, "
            f"NFE {plan.nfe}, {seconds:.1f} s; look at {out / 'grid.png'}"
        )


def draw(
    model: Denoiser,
    plan: kdiff.Plan,
    seeds: list[int],
    labels: list[int] | None,
    out: Path,
    images: list[np.ndarray],
    batch: int,
    deterministic: bool,
    trajectory: Path | None,
    earlier: list[Path],
) -> list[list[np.ndarray]]:
    """Write a PNG a seed as each batch ends, and add the batch to `images`; for a trajectory,
    return each batch's denoised images, an array an evaluation, the last being the result.
    The `earlier` files go when the first batch is there."""
    cond = {"class_labels": labels}
    runs = kdiff.run(model, plan, seeds, batch=batch, deterministic=deterministic, cond=cond)
    films = []
    total = None if plan.nfe is None else plan.nfe * math.ceil(len(seeds) / batch)
    with tqdm(total=total, unit="NFE", disable=None) as bar:
        for part, states in runs:
            film = []
            for state in watched(states, bar):
                if trajectory is not None:
                    film.append(to_uint8(model.decode(state.denoised)))
            images.append(to_uint8(model.decode(state.x)))
            films.append([*film[:-2], images[-1]])
            while earlier:
                earlier.pop().unlink(missing_ok=True)
            for seed, image in zip(part, images[-1], strict=True):
                with whole_file(out / picture_name(seed)) as temporary:
                    save_image(image, temporary)
    return films


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
        bar.update(state.asks - shown)
        shown = state.asks
        yield state


def choose_seeds(num: int | None, seed: int | None, seeds: str | None) -> list[int]:
    """--num images from --seed on, or --seeds `0-63`, `3,5,8-10`."""
    if num is not None and num < 1:
        raise click.UsageError(f"--num must be at least 1, not {num}")
    if seeds is None:
        check_count(16 if num is None else num)
        first = seed or 0
        chosen = list(range(first, first + (16 if num is None else num)))
    else:
        if seed is not None:
            raise click.UsageError("give only one of --seed and --seeds")
        chosen = parse_seeds(seeds)
        if num not in (None, len(chosen)):
            raise click.UsageError(f"--num {num}, but --seeds names {len(chosen)}")
    if not all(0 <= one < 2**64 for one in chosen):
        raise click.UsageError("seeds must be from 0 to 2^64 - 1")
    return chosen


def check_count(n: int) -> None:
    if n > MOST_IMAGES:
        raise click.UsageError(f"at most {MOST_IMAGES} images in one run, not {n}")


def parse_seeds(text: str) -> list[int]:
    """`3,5,8-10` -> [3, 5, 8, 9, 10]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.UsageError(f"--seeds takes 0-63 or 3,5,8-10, not {text!r}")
        part_seeds = range(int(first), int(last if dash else first) + 1)
        check_count(len(seeds) + part_seeds.stop - part_seeds.start)
        seeds += part_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise click.UsageError(f"--seeds {text!r} names no seed, or one twice")
    return seeds


def beside(out: Path, film: Path | None) -> str | None:
    """The name of the trajectory, if it lies among the pictures."""
    return film.name if film is not None and film.parent.resolve() == out.resolve() else None


def check_trajectory(film: Path | None, out: Path, overwrite: bool) -> None:
    if film is None:
        return
    if film.suffix.lower() != ".gif":
        raise click.UsageError(f"--trajectory writes a .gif, not {str(film)!r}")
    if film.parent != out:
        check_writable(film.parent)
    if film.is_dir() or (film.exists() and not overwrite):
        raise click.UsageError(f"{film} exists; choose another name, or add --overwrite")


def prepare_folder(out: Path, overwrite: bool) -> list[Path]:
    """Make the folder, and make sure of it before anything is computed. The pictures of the run
    that is in it, which are to go when this one's come."""
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out {out} is a file, not a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise click.UsageError(f"{out} is not empty; choose another --out, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"cannot make the folder {out}: {error.strerror}") from error
    check_writable(out)
    earlier = files_of_run(out)
    for name in (RECORD, OVERVIEW):  # they would not speak of this run
        if (out / name).is_file():
            (out / name).unlink()
    return earlier


def check_writable(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.UsageError(f"cannot write into {folder}")
