"""The settings beside a file that holds a program: `FILE.json`, the keywords of `kdiff.wrap`.

{"prediction": "eps", "shape": [3, 32, 32], "alphas_cumprod": "cosine"}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdiff.denoiser import Denoiser
from kdiff.wrap import wrap

EXAMPLE = '{"prediction": "eps", "shape": [3, 32, 32]}'
MAX_BYTES = 1 << 24  # far more than a list of a thousand alphas_cumprod


def files(path: Path) -> list[Path]:
    """The program at `path`, and its settings."""
    return [path, _settings(path)]


def read(path: Path) -> dict[str, Any]:
    """The settings of the program at `path`. ValueError, which shows what to write, without any."""
    file = _settings(path)
    if not file.is_file():
        raise ValueError(
            f"{path} is a program that does not say what it predicts: write that to {file.name} "
            f"beside it, the keywords of kdiff.wrap, such as {EXAMPLE}"
        )
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} is too large to be settings")
    try:
        settings = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(settings, dict) or not {"prediction", "shape"} <= settings.keys():
        raise ValueError(f"{file} must give at least prediction and shape, such as {EXAMPLE}")
    return settings


def wrapped(path: Path, program: Callable[..., Any]) -> Denoiser:
    """`program` as its settings say."""
    settings = {"name": path.stem, **read(path)}
    try:
        model = wrap(program, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}.json: {error}") from error
    said = f"{settings['prediction']}, from {path.name}.json"
    return model.replace(facts={"parameterisation": said})


def _settings(path: Path) -> Path:
    return path.with_name(path.name + ".json")
