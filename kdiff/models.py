"""`kdiff.load`: a model by name, if it comes with the package, or from a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdiff import checkpoints
from kdiff.denoiser import Denoiser
from kdiff.files import user_path

ASSETS = Path(__file__).parent / "assets"
DEFAULT_MODEL = "cifar10"


def packaged_models() -> dict[str, Path]:
    """The models that come with the package: name -> file."""
    return {path.stem: path for path in sorted(ASSETS.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """The file or folder of a packaged model's name or of a path. ValueError if there is none."""
    packaged = packaged_models()
    if str(name) in packaged:
        return packaged[str(name)]
    path = user_path(name)
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
    return checkpoints.load(find_model(model), **overrides)


def sha256(path: str | Path) -> str:
    """The hash that results carry, so that a number names its weights. Of a folder, or of a file
    whose format reads others beside it, such as its settings: that of the files' hashes and names.
    """
    path = user_path(path)
    if path.is_dir():
        return _sha256_of_all([p for p in path.rglob("*") if p.is_file()], path)
    files = checkpoints.files(path)
    return _sha256_of_one(path) if len(files) == 1 else _sha256_of_all(files, path.parent)


def _sha256_of_all(files: Sequence[Path], folder: Path) -> str:
    named = {p: p.relative_to(folder).as_posix() for p in sorted(files)}
    lines = [f"{_sha256_of_one(p)}  {name}\n" for p, name in named.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256_of_one(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
