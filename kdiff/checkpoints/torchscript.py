"""TorchScript archives (`torch.jit.save`), with their settings beside them in `FILE.json`.

TorchScript is a language of its own: a file of it runs its own operators, never Python. A few of
those operators reach files or native libraries, so an archive that mentions one, or brings
operators of another library, is refused unless it is trusted. This is checked in its source, before
torch reads anything.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import sidecar
from kdiff.checkpoints.programs import refuse, trusted
from kdiff.checkpoints.sidecar import beside as beside
from kdiff.denoiser import Denoiser

NAME = "torchscript"

# aten::save, aten::from_file; torch.classes are native objects; rpc calls other machines.
FORBIDDEN = re.compile(rb"\b(save|load|from_file|classes|rpc\w*)\b")
OTHER_OPERATORS = re.compile(rb"\bops\s*\.\s*(?!(?:aten|prim)\b)(\w+)")
MAX_SOURCE = 1 << 26


def detect(path: Path) -> str | None:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return "not a zip archive"
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    if "constants.pkl" not in names or not any(name.startswith("code/") for name in names):
        return "a zip archive without TorchScript code"
    return None


def load(path: Path, trust: bool | None = None, **told: Any) -> Denoiser:
    """ValueError without settings, beside it or told; or if the program might do more than
    compute."""
    sidecar.read(path, told)
    reason = None if trusted(trust) else _suspicion(path)
    if reason:
        raise refuse(path, reason)
    try:
        program = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(f"{path} is a damaged TorchScript archive: {_last_line(error)}") from error
    return sidecar.wrapped(path, program, told)


def _suspicion(path: Path) -> str | None:
    """Why the archive is not certain to only compute, if so."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if min(member.header_offset for member in members) != 0:
            return "does not begin with its zip archive"  # torch might read another one than this
        sources = [
            m for m in members if "/code/" in f"/{m.filename}" and ".debug_pkl" not in m.filename
        ]
        if sum(member.file_size for member in sources) > MAX_SOURCE:
            return "has too much source to look through"
        for member in sources:
            source = archive.read(member)
            found = FORBIDDEN.search(source) or OTHER_OPERATORS.search(source)
            if found:
                return f"is a program that uses {found[0].decode()!r}, which may reach beyond it"
    return None


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:120]
