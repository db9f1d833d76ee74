"""`kdiff.load`: a model by name, if it comes with the package, or from a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdiff import checkpoints
from kdiff.denoiser import Denoiser
from kdiff.files import read_json, user_path
from kdiff.hashes import sha256_of_file, sha256_of_files

ASSETS = Path(__file__).parent / "assets"
DEFAULT_MODEL = "cifar10"


def packaged_models() -> dict[str, Path]:
    """The models that come with the package: name -> file."""
    return {path.stem: path for path in sorted(ASSETS.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """The file or folder of a packaged model's name, or of a path. A text that is such a name is
    never a path, so that a name in a record means one model: `./cifar10` is, and any `Path`.

    ValueError if there is none. A warning if the name hides a file or folder.
    """
    packaged, path = packaged_models(), user_path(name)
    if isinstance(name, str) and name in packaged:
        if os.path.lexists(path):
            told = f"{name} is the model that comes with kdiff: for the file or folder say ./{name}"
            warnings.warn(told, stacklevel=2)
        return packaged[name]
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"{path} is a link that leads to nothing")
    if os.path.isfile(path) or os.path.isdir(path):  # False, not an error, for a name too long
        return path
    raise ValueError(
        f"no model {str(name)!r}: neither a file or folder nor one that comes with kdiff "
        f"({', '.join(packaged) or 'none'}); kdiff downloads nothing"
    )


def load(model: str | Path = DEFAULT_MODEL, /, **overrides: Any) -> Denoiser:
    """The `Denoiser` of a packaged model (`cifar10`), or of a checkpoint file or folder, on the
    CPU. Its format is recognised; `overrides` as in `kdiff.checkpoints.load`.

    ValueError if there is no such file or it is not a checkpoint that kdiff reads.
    """
    path = find_model(model)
    loaded = checkpoints.load(path, **overrides)
    loaded.hashed = _Hash(path, overrides)
    beside = path.with_suffix(".json")
    if path.parent == ASSETS and beside.is_file():  # its data: the file stands as it was published
        return loaded.replace(**read_json(beside))
    return loaded


class _Hash:
    """The hash of the files that a model was loaded from, computed at the first call."""

    def __init__(self, path: Path, overrides: Mapping[str, Any]):
        self.path, self.overrides = path, overrides
        self._known: str | None = None

    def __call__(self) -> str:
        if self._known is None:
            self._known = sha256(self.path, **self.overrides)
        return self._known


def sha256(path: str | Path, /, **overrides: Any) -> str:
    """The hash that results carry, so that a number names its weights: of all files that
    `kdiff.load(path, **overrides)` reads. For one file it is the file's own hash; for several, or
    for a folder, it is the hash of the files' hashes and names. ValueError if `path` is not a
    checkpoint. For any other file there is `kdiff.hashes.sha256_of_file`."""
    path = user_path(path)
    files = checkpoints.files(path, **overrides)
    if files == [path]:
        return sha256_of_file(path)
    return sha256_of_files(files, path if path.is_dir() else path.parent)
