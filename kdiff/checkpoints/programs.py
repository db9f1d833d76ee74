"""Files that hold a program, which runs only if it is trusted.

One says so by `trust=True` or, for the command line, by the environment variable KDIFF_TRUST=1.
Nothing that the file or its neighbours say counts, and nothing in a program is looked through: in a
language that reaches files, no list of words tells the harmless ones.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

_HOW = "if you trust whoever made it, say kdiff.load(.., trust=True), or set KDIFF_TRUST=1"


def check_trusted(path: Path, kind: str, trust: bool | None) -> None:
    """ValueError unless `trust` is True, or None while KDIFF_TRUST is 1. `kind`: what `path` is."""
    if not isinstance(trust, bool | None):
        raise ValueError(f"trust must be True or False, not {trust!r}")
    if not (os.environ.get("KDIFF_TRUST") == "1" if trust is None else trust):
        raise ValueError(f"{path} is {kind}: a program, which can do anything that you can; {_HOW}")


def members(path: Path) -> list[str] | None:
    """The names in a zip archive; None for another file."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
