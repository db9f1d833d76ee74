"""Programs of `torch.export.save` (`.pt2`), with their settings beside them in `FILE.json`.

torch reads such a file with pickles, code of guards and sympy's `eval`: reading one can run
anything. So it is read only if it is trusted. Export with a dynamic batch, or only batches of the
exported size can be sampled. Labels that were exported as the third argument are `"labels": null`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import sidecar
from kdiff.checkpoints.programs import check_trusted, members
from kdiff.checkpoints.sidecar import files as files
from kdiff.denoiser import Denoiser

NAME = "exported"
_MARKS = ("archive_format", "serialized_exported_program.json")


def detect(path: Path) -> str | None:
    names = members(path)
    if names is None:
        return "not a zip archive"
    if not any(name.endswith(_MARKS) for name in names):
        return "a zip archive without an exported program"
    return None


def load(path: Path, trust: bool | None = None, **told: Any) -> Denoiser:
    """ValueError without settings (beside it or told), or unless trusted."""
    sidecar.read(path, told)
    check_trusted(path, "an exported program", trust)
    program = torch.export.load(path).module()
    # An exported program has no modes: its own train() only raises an error.
    program.train = lambda mode=True: program  # type: ignore[method-assign]
    return sidecar.wrapped(path, program, told)
