"""What all commands with a model let one choose: settings, device, dtype and classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch

from kdiff.class_names import class_numbers
from kdiff.cli.errors import told
from kdiff.cli.grid_options import key_value, usage_errors
from kdiff.denoiser import Denoiser
from kdiff.driver import NonFiniteError, TooManyEvaluations
from kdiff.files import parse_yaml
from kdiff.messages import Unusable, one_line
from kdiff.models import load
from kdiff.samplers.adaptive_steps import VanishingStep

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def settings_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --set; the command gets it as `settings`, for `load_with`."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting that the model's file lacks or has wrong, as for kdiff.load: "
        "shape=3,64,64, prediction=v or weights=model; may be repeated.",
    )(command)


def load_with(path: Path, settings: Sequence[str]) -> Denoiser:
    """`kdiff.load(path, **settings)`, with values as in YAML. ValueError if that fails."""
    return load(path, **as_keywords(settings))


def as_keywords(settings: Sequence[str]) -> dict[str, Any]:
    return {key: as_value(text) for key, text in map(key_value, settings)}


def as_value(text: str) -> Any:
    """`3,64,64` and `[3, 64, 64]` and `(3, 64, 64)` -> [3, 64, 64], `80.0` -> 80.0, `v` -> "v",
    `{name: flow, data_at: 1}` -> {"name": "flow", "data_at": 1}."""
    listed = "," in text and not text.startswith("{")
    try:
        return parse_yaml(f"[{text.strip('[]()')}]" if listed else text, text)
    except ValueError:
        return text


@contextmanager
def network_errors(name: str) -> Iterator[None]:
    """Whatever goes wrong while a network runs, as one line: it may be anybody's.
    click.UsageError if what goes wrong is how it was to be guided."""
    try:
        yield
    except click.ClickException:
        raise
    except Unusable as error:
        raise click.UsageError(f"{name}: {one_line(error, 300)}") from error
    except OSError as error:
        raise click.ClickException(told(error)) from error
    except (NonFiniteError, TooManyEvaluations, VanishingStep) as error:
        raise click.ClickException(one_line(error, 300)) from error
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise click.ClickException(f"{name}: {one_line(error, 300)}") from error
    except Exception as error:
        raise click.ClickException(f"{name}: {told(error)}") from error


def choose_labels(model: Any, text: str | None, n: int) -> list[int] | None:
    """A class for each image: the listed ones, or all, in turn. The class none is -1."""
    if not model.classes:
        if text is not None:
            raise click.UsageError(f"{model.name} has no classes: leave out --class-label")
        return None
    with usage_errors():
        labels = [*range(len(model.classes))] if text is None else class_numbers(model, text)
    return [labels[i % len(labels)] for i in range(n)]


def choose_device(name: str | None) -> torch.device:
    """The device of that name, once it has been tried. Default: CUDA if there is any; under
    torchrun, the GPU of this process."""
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
