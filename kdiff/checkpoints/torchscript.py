"""TorchScript archives (`torch.jit.save`), with their settings beside them in `FILE.json`.

TorchScript is a language of its own, whose operators also write files and load libraries, and parts
of an archive run while it is loaded. So it is read only if it is trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import sidecar
from kdiff.checkpoints.programs import check_trusted, members
from kdiff.checkpoints.sidecar import files as files
from kdiff.denoiser import Denoiser

NAME = "torchscript"


def detect(path: Path) -> str | None:
    names = members(path)
    if names is None:
        return "not a zip archive"
    inside = [name.partition("/")[2] for name in names]
    if "constants.pkl" not in inside or not any(name.startswith("code/") for name in inside):
        return "a zip archive without TorchScript code"
    return None


def load(path: Path, trust: bool | None = None, **told: Any) -> Denoiser:
    """ValueError without settings (beside it or told), or unless trusted."""
    sidecar.read(path, told)
    check_trusted(path, "a TorchScript archive", trust)
    try:
        program = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{path} is a damaged TorchScript archive: {_last_line(error)}") from error
    return sidecar.wrapped(path, program, told)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:120]
