"""What every command that runs a model lets one choose: its device, its dtype, its classes."""

from __future__ import annotations

import os

import click
import torch

from kdiff.denoiser import Denoiser

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_labels(model: Denoiser, text: str | None, n: int) -> list[int] | None:
    """One class for each image: those of the list, or all, in turn; -1 for none."""
    if not model.classes:
        if text is not None:
            raise click.UsageError(f"{model.name} has no classes: leave out --class-label")
        return None
    names = [] if text is None else [part.strip() for part in text.split(",")]
    labels = [class_index(model, name) for name in names] or list(range(len(model.classes)))
    return [labels[i % len(labels)] for i in range(n)]


def class_index(model: Denoiser, name: str) -> int:
    if name.lower() == "none":
        return -1
    if name.lower() in model.classes:
        return model.classes.index(name.lower())
    if name.isdecimal() and int(name) < len(model.classes):
        return int(name)
    raise click.UsageError(
        f"unknown class {name!r}; {model.name} has none, 0 to {len(model.classes) - 1}, or "
        + ", ".join(model.classes)
    )


def choose_device(name: str | None) -> torch.device:
    """The device of that name, tried; by default CUDA if there is any, and under torchrun the one
    of this process."""
    if name is None:
        own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        return torch.device(own if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0][:100]
        raise click.UsageError(f"no device {name!r} here ({reason}); try --device cpu") from error
    return device
