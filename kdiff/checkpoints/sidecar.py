"""The settings beside a file that holds a program: `FILE.json`, the keywords of `kdiff.wrap`.

{"prediction": "eps", "shape": [3, 32, 32], "alphas_cumprod": "cosine"}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdiff.checkpoints import MissingSetting, as_precond
from kdiff.denoiser import Denoiser
from kdiff.files import read_json
from kdiff.wrapping import wrap

_EXAMPLE = '{"prediction": "eps", "shape": [3, 32, 32]}'
_CALL = (  # settings that are not about noise levels
    "shape",
    "classes",
    "labels",
    "one_hot",
    "null_class",
    "learned_variance",
    "name",
)
_MAX_BYTES = 1 << 24  # far more than a list of a thousand alphas_cumprod


def files(path: Path) -> list[Path]:
    """The program at `path`, and the file of its settings if there is one."""
    settings = _settings(path)
    return [path, *([settings] if settings.is_file() else [])]


def read(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the program at `path`. Told settings replace those in the file. ValueError,
    which shows what to write, if they are not enough."""
    file = _settings(path)
    settings = {**(_from_file(file) if file.is_file() else {}), **told}
    if "shape" in settings and settings.keys() & {"prediction", "precond"}:
        return settings
    if file.is_file():
        raise MissingSetting(
            f"{file} must give at least prediction and shape, such as {_EXAMPLE}; or give them as "
            "keywords"
        )
    raise MissingSetting(
        f"{path} is a program that does not say what it predicts: write that to {file.name} "
        f"beside it, the keywords of kdiff.wrap, such as {_EXAMPLE}; or give them as keywords"
    )


def _settings(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _from_file(file: Path) -> dict[str, Any]:
    settings = read_json(file, _MAX_BYTES)
    if not isinstance(settings, dict):
        raise ValueError(f"{file} must give at least prediction and shape, such as {_EXAMPLE}")
    return settings


def wrapped(path: Path, program: Callable[..., Any], told: Mapping[str, Any]) -> Denoiser:
    """The denoiser of `program`, by its settings and the told ones, which replace them."""
    settings = {"name": path.stem, **read(path, told)}
    precond = settings.pop("precond", None)
    if precond is not None:  # whatever the network was trained with
        settings = {"prediction": "denoised", **{k: settings[k] for k in settings if k in _CALL}}
    try:
        model = wrap(program, **settings)
        model = model if precond is None else model.replace(as_precond(precond))
    except (TypeError, ValueError) as error:
        where = "the settings" if told else f"{path.name}.json"
        raise ValueError(f"{where}: {error}") from error
    said = "as told" if told.keys() & {"prediction", "precond"} else f"from {path.name}.json"
    return model.replace(facts={"parameterisation": f"{model.precond.name}, {said}"})
