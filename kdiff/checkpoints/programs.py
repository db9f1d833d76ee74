"""Files that hold a program, which runs only if it is trusted.

Users trust it by `trust=True` or, on the command line, by the environment variable KDIFF_TRUST=1.
The file and its neighbours have no say. kdiff does not search a program for dangerous words: in a
language that reaches files, no list of words tells which programs are harmless.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

_HOW = "if you trust whoever made it, say kdiff.load(.., trust=True), or set KDIFF_TRUST=1"


def check_trusted(path: Path, kind: str, trust: bool | None) -> None:
    """ValueError unless `trust` is True, or None while KDIFF_TRUST is 1. `kind`: what it is."""
    if not isinstance(trust, bool | None):
        raise ValueError(f"trust must be True or False, not {trust!r}")
    if not (os.environ.get("KDIFF_TRUST") == "1" if trust is None else trust):
        raise ValueError(f"{path} is {kind}: a program, which can do anything that you can; {_HOW}")


def members(path: Path) -> list[str] | None:
    """The names in a zip archive, or None for any other file."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
