"""`kdiff inspect`: what a checkpoint is, how kdiff reads it, and whether that denoises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from kdiff.cli.choices import choose_device, load_with, settings_option
from kdiff.cli.grid_options import CONTEXT, to_json, usage_errors
from kdiff.denoiser import Denoiser
from kdiff.messages import one_line
from kdiff.model_check import health, named, not_finite, to_model
from kdiff.models import find_model
from kdiff.ranges import beginning, suggest


@click.command("inspect", context_settings=CONTEXT)
@click.argument("file")
@click.option("--images", help="Folder, .zip, .npz[:KEY], .npy of images like the model's data.")
@click.option(
    "--num", default=8, help="How many images, and how many samples of noise, to denoise."
)
@click.option(
    "--health/--no-health", "check", default=True, help="Whether to run the network at all."
)
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
@settings_option
def command(
    file: str,
    images: str | None,
    num: int,
    check: bool,
    device: str | None,
    as_json: bool,
    settings: Sequence[str],
) -> None:
    """Show what FILE (a checkpoint, a folder or a packaged model) is, and whether it denoises.

    A network that is read in the wrong way cannot denoise: it does no better than a guess that
    knows only the mean and the spread of the data. Without --images, only certain faults are
    found. With them, the range of noise levels that suits their spread is suggested too.
    """
    if num < 2:
        raise click.UsageError(f"--num must be at least 2, not {num}")
    with usage_errors():
        path = find_model(file)
        model = load_with(path, settings)
        shown = None if images is None else first_pictures(images, num)
    record: dict[str, Any] = {"file": str(path), **describe(model)}
    if shown is not None:
        with usage_errors():
            record["suggested"] = {**suggest(to_model(shown, model), model), "images": len(shown)}
    if check:
        record["health"] = check_health(model.to(choose_device(device)), shown, num)
    click.echo(to_json(record) if as_json else as_text(record))


def describe(model: Denoiser) -> dict[str, Any]:
    """All about a model except its health, as plain values."""
    parameters = list(getattr(model.network, "parameters", list)())
    network = getattr(model.network, "f", model.network)  # what kdiff.wrap was given
    return {
        "format": model.facts.get("format", "unknown"),
        "network": model.facts.get("network", type(network).__name__),
        "parameters": sum(p.numel() for p in parameters),
        "dtype": str(model.dtype).removeprefix("torch.") if parameters else None,
        "parameterisation": model.facts.get("parameterisation", model.precond.name),
        "sigma_min": model.sigma_min,
        "sigma_max": model.sigma_max,
        "noise_levels": None if model.sigmas is None else len(model.sigmas),
        "table_end": None if model.sigmas is None else model.sigmas[-1],
        "beginning": beginning(model),
        "not_finite": not_finite(model.network),
        "shape": list(model.shape),
        "classes": list(model.classes),
        "facts": model.facts,
    }


def first_pictures(path: str, n: int) -> np.ndarray:
    """The first `n` images, or all if there are fewer."""
    from kdiff.eval.images.pictures import open_pictures

    pictures = open_pictures(path)
    (images,) = pictures.batches(n, range(min(n, len(pictures))))
    return images


def check_health(model: Denoiser, images: np.ndarray | None, n: int) -> dict[str, Any]:
    try:
        return health(model, images, n).record()
    except Exception as error:  # the network may be anybody's, and need a prompt, say
        verdict = f"the network cannot be called so: {one_line(error, 160)}"
        return {"status": "unknown", "verdict": verdict}


def as_text(record: dict[str, Any]) -> str:
    count = record["noise_levels"]
    classes = record["classes"]
    first = ", ".join(classes[:4]) + (", .." if len(classes) > 4 else "")
    dtype = f", {record['dtype']}" if record["dtype"] else ""
    lines = {
        "file": record["file"],
        "format": record["format"],
        "network": f"{record['network']}, {record['parameters']:,} parameters{dtype}",
        "parameterisation": record["parameterisation"],
        "sigma": f"{record['sigma_min']:.4g} to {record['sigma_max']:.4g}, "
        + (f"{count} discrete noise levels" if count else "continuous"),
        **_optional(record),
        "shape": " x ".join(map(str, record["shape"])),
        "classes": f"{len(classes)}: {first}" if classes else "none",
    }
    shown = {"format", "network", "parameterisation"}
    lines |= {key: text for key, text in record["facts"].items() if key not in shown}
    width = max(map(len, lines)) + 2
    text = [f"{key.ljust(width)}{value}" for key, value in lines.items()]
    if "health" in record:
        text += ["", *_health_lines(record["health"])]
    return "\n".join(text)


def _optional(record: dict[str, Any]) -> dict[str, str]:
    """The lines that only some models have."""
    lines = {}
    if record["beginning"]:
        lines["beginning"] = record["beginning"]
    if record.get("suggested"):
        s = record["suggested"]
        lines["suggested"] = (
            f"sigma {s['sigma_min']:.2g} to {s['sigma_max']:.2g}, or {s['few']:.2g} for 10 "
            f"evaluations or fewer, by the spread of {s['images']} images"
        )
    if record["not_finite"]:
        lines["weights"] = f"not finite {named(record['not_finite'])}"
    return lines


def _health_lines(found: dict[str, Any]) -> list[str]:
    measured = {name: found[name] for name in ("noise", "images") if found.get(name)}
    if not measured:
        return [f"{found['status']}: {found['verdict']}"]
    header = ["sigma", *(title for name in measured for title in (f"on {name}", "a guess"))]
    columns = [
        list(map(float, errors[who])) for errors in measured.values() for who in ("model", "guess")
    ]
    rows = zip(found["sigmas"], *columns, strict=True)
    return [
        "root mean square error of what is denoised",
        "".join(title.rjust(11) for title in header),
        *("".join(f"{value:11.4g}" for value in row) for row in rows),
        f"{found['status']}: {found['verdict']}",
    ]
