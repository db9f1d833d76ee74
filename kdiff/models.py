"""`kdiff.load`: a model by name, if it comes with the package, or from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdiff.checkpoints import native
from kdiff.denoiser import Denoiser

ASSETS = Path(__file__).parent / "assets"
DEFAULT_MODEL = "cifar10"


def packaged_models() -> dict[str, Path]:
    """The models that come with the package: name -> file."""
    return {path.stem: path for path in sorted(ASSETS.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """The file of a packaged model's name or of a path. ValueError if there is neither."""
    packaged = packaged_models()
    if str(name) in packaged:
        return packaged[str(name)]
    if Path(name).is_file():
        return Path(name)
    raise ValueError(
        f"no model {str(name)!r}: neither a file nor one that comes with kdiff "
        f"({', '.join(packaged) or 'none'})"
    )


def load(name: str | Path = DEFAULT_MODEL) -> Denoiser:
    """The `Denoiser` of a packaged model (`cifar10`) or of a checkpoint file, on the CPU, float32.

    ValueError if there is no such file or it is not a checkpoint that kdiff reads.
    """
    return native.load(find_model(name))


def sha256(path: str | Path) -> str:
    """The hash that results carry, so that a number names its weights."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
