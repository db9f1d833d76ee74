"""Checkpoint formats: one module each, with `NAME`, `detect(path)` and `load(path)`.

`detect(path) -> str | None` is cheap: None if the file is of this format, else a short clause that
says what is missing ("not a zip archive"). `load(path) -> Denoiser` raises ValueError for a
variant that it does not know, and names it. Neither runs code from the file, unless it is a program
and trusted. `files(path) -> list[Path]` are all files that `load(path)` reads; a format without it
reads only the file at `path`.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from kdiff.counts import real_number, sizes
from kdiff.denoiser import Denoiser
from kdiff.downloads import check_file
from kdiff.files import user_path
from kdiff.messages import MissingSetting as MissingSetting
from kdiff.messages import one_line as one_line
from kdiff.names import Registry
from kdiff.networks import classes_of
from kdiff.preconditioners import Precond, precond
from kdiff.wrapping import Adapter

# kdiff's own formats, in the order in which they are tried: exact ones first, then those that are
# recognised by the names of tensors.
_OWN = (
    "native",
    "diffusers_folder",
    "torchscript",
    "exported",
    "onnx_file",
    "edm",
    "edm2",
    "edm_weights",
    "openai",
    "score_sde",
    "lucidrains",
    "k_diffusion",
)

# Settings that may be told for any model. None means not told.
_TOLD = (
    "precond",
    "prediction",
    "shape",
    "classes",
    "sigma_min",
    "sigma_max",
    "learned_variance",
    "name",
    "weights",
)
# Settings that are replaced in any model, even if its format used them where the file lacks them.
_REPLACED = {"precond", "shape", "sigma_min", "sigma_max"}


def _adopt(registry: Registry[Any], name: str, module: Any) -> None:
    if all(hasattr(module, key) for key in ("NAME", "detect", "load")):
        registry.setdefault(module.NAME, module)
    else:
        message = f"{name} of kdiff.checkpoints is left out: a format has NAME, detect and load"
        warnings.warn(message, stacklevel=2)


FORMATS: Registry[Any] = Registry("checkpoint format", "kdiff.checkpoints", _adopt)


def formats() -> Registry[Any]:
    """The modules of all formats by `NAME`: kdiff's, imported now, then those of other packages."""
    for name in _OWN:
        module = import_module(f"{__name__}.{name}")
        FORMATS.setdefault(module.NAME, module)
    return FORMATS.all()


def find_format(path: str | Path) -> Any:
    """The module of the format of the file or folder at `path`.

    ValueError if it has none of the formats. The message names the nearest format and what the file
    lacks for it, or the folder to give instead.
    """
    from kdiff.checkpoints.refusal import refusal

    path = user_path(path)
    # A device or a pipe is refused too: reading one may never end.
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError(f"{path} is neither a file nor a folder")
    if os.path.isfile(path):
        _check_readable(path)
    missed: dict[str, str] = {}
    for name, module in formats().items():
        reason = _detect(module, path)
        if reason is None:
            return module
        missed[name] = reason
    folder = _folder_around(path)
    if folder is not None:
        raise ValueError(f"{path} is part of a diffusers folder: give the folder {folder}")
    raise ValueError(refusal(path, missed))


def _check_readable(path: Path) -> None:
    """ValueError if the file cannot be opened, or cannot be a checkpoint."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if path.stat().st_size:  # formats decide what an empty folder is
        check_file(path)


def _folder_around(path: Path) -> Path | None:
    """The diffusers folder that the file belongs to, if any: the folder of the whole pipeline."""
    diffusers = formats()["diffusers"]
    if path.is_file() and path.suffix in (".json", ".safetensors", ".bin"):
        for folder in (path.parent.parent, path.parent):
            if _detect(diffusers, folder) is None:
                return folder
    return None


def files(path: Path, **overrides: Any) -> list[Path]:
    """All files that `load(path, **overrides)` reads. ValueError if `path` is of no format, or a
    file lacks."""
    module = find_format(path)
    if hasattr(module, "files"):
        own = _taken(module.files, overrides)
        return module.files(path, **{key: overrides[key] for key in own})
    if path.is_dir():
        raise ValueError(f"{path}: the format {module.NAME} does not say which files it reads")
    return [path]


def _detect(module: Any, path: Path) -> str | None:
    try:
        return module.detect(path)
    except Exception as error:  # a damaged file may break any parser in any way
        return one_line(error)


def load(path: str | Path, /, *, trust: bool | None = None, **overrides: Any) -> Denoiser:
    """The denoiser in a file or folder of any format, on the CPU.

    `overrides` correct what the format says or cannot say: `precond` (a `Precond`, its name, or
    {"name": .., settings}), `prediction` (eps, v or x0, on the noise levels that were found),
    `shape`, `classes` (names), `sigma_min`, `sigma_max`, `name`, `learned_variance` (whether the
    network answers with one, see `Denoiser`), and settings of the format's own (see its `load`):
    all but programs take `dtype`, of the weights (default: float32; None: the file's), and formats
    of state dicts take `weights`, which of several (see `unwrap`).
    `trust` runs programs (TorchScript, exported) that cannot be known to be harmless.
    ValueError, in one line, if it is of no known format, damaged, or a variant that is not
    supported; `MissingSetting`, which is one, if it lacks what a keyword can say.
    """
    path = user_path(path)
    overrides = {k: v for k, v in overrides.items() if v is not None or k not in _TOLD}
    _check(overrides)
    if "precond" in overrides:
        overrides["precond"] = as_precond(overrides["precond"])
    module = find_format(path)
    given = {"trust": trust, **overrides}
    own = _taken(module.load, given)
    if "weights" in overrides.keys() - own:
        raise ValueError(f"{path}: a {module.NAME} model has just one network: leave out weights")
    try:
        model = module.load(path, **{key: given[key] for key in own})
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:  # for instance, a full disk where a library writes temporary files
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    except Exception as error:  # see _detect
        kind = f"damaged {module.NAME} file: {type(error).__name__}"
        raise ValueError(f"{path}: {kind}: {one_line(error)}") from error
    model.facts.setdefault("format", module.NAME)
    rest = overrides.keys() - (own - _REPLACED)
    model = _override(model, {key: overrides[key] for key in rest})
    if not 0 < model.sigma_min < model.sigma_max < math.inf:
        raise ValueError(
            f"{path}: sigma_min must be above 0 and below sigma_max, which are {model.sigma_min:g} "
            f"and {model.sigma_max:g}"
        )
    return model


def _check(overrides: dict[str, Any]) -> None:
    """Convert the settings of every format to their types. ValueError if a value does not fit."""
    if "shape" in overrides:
        overrides["shape"] = sizes(overrides["shape"])
    classes = overrides.get("classes", [])
    if not _is_list(classes, str):
        raise ValueError(f"classes must be a list of names, not {classes!r}")
    dtype = overrides.get("dtype")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be None or one such as torch.bfloat16, not {dtype!r}")
    if {"precond", "prediction"} <= overrides.keys():
        raise ValueError("give precond or prediction, not both")
    for key in ("name", "weights"):
        if not isinstance(overrides.get(key, ""), str):
            raise ValueError(f"{key} must be a name, such as model, not {overrides[key]!r:.80}")
    if "facts" in overrides:
        raise ValueError("facts are what a file says, and cannot be told")
    for key in ("sigma_min", "sigma_max"):
        if key in overrides:
            overrides[key] = real_number(key, overrides[key])


def _taken(function: Any, given: dict[str, Any]) -> set[str]:
    """Which of the keywords a format's `load` takes itself."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return set(given)
    return given.keys() & {p.name for p in parameters} - {"path"}


def as_precond(value: Any) -> Precond:
    """A `Precond`, given as such, by name, or as settings with `name`. ValueError otherwise."""
    if isinstance(value, Precond):
        return value
    settings = {"name": value} if isinstance(value, str) else value
    try:
        return precond(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"precond={value!r:.80}: {error}") from error


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def _override(model: Denoiser, overrides: dict[str, Any]) -> Denoiser:
    if "prediction" in overrides:
        overrides["precond"] = _predicting(model.precond, overrides.pop("prediction"))
    _check_classes(model, overrides.get("classes"))
    if "precond" in overrides:
        overrides["facts"] = {**model.facts, "parameterisation": "as told to kdiff.load"}
    try:
        if "shape" in overrides and not isinstance(model.network, Adapter):  # programs have any
            check_shape(overrides["shape"], model.shape[0])
        return model.replace(**overrides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{model.name}: {error}") from error


def _check_classes(model: Denoiser, names: Any) -> None:
    """ValueError unless there is a name for each class. Otherwise a network would leave classes
    out, or take unknown ones for no class. Programs may have any number."""
    known = bool(model.classes) or classes_of(model.network) is not None
    if names is not None and known and len(names) != len(model.classes):
        count = len(model.classes) or "no"
        raise ValueError(f"{model.name} has {count} classes, not {len(names)}: {names!r:.80}")


def check_shape(shape: Sequence[int], channels: int, factor: int = 1) -> None:
    """ValueError unless it is the shape of images with that many channels whose sides a network can
    halve repeatedly, down to 1 / `factor`."""
    if len(shape) != 3 or shape[0] != channels or any(size % factor for size in shape[1:]):
        multiples = f" with multiples of {factor}" if factor > 1 else ""
        raise ValueError(
            f"shape must be ({channels}, height, width){multiples}, not {tuple(shape)}"
        )


def _predicting(found: Precond, prediction: str) -> Precond:
    """The same noise levels, another meaning of the output."""
    discrete = ("eps", "v", "x0")
    config = dict(found.config or {})
    if prediction not in discrete or config.pop("name", None) not in discrete:
        raise ValueError(
            f"prediction={prediction!r} cannot replace {found.name}: it changes eps, v or x0 into "
            "another of them; for all else give precond"
        )
    return precond(prediction, **config)
