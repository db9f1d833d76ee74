"""Files that hold a program: when one is run.

A program may be asked for explicitly, by `trust=True` or, for the command line, by the environment
variable KDIFF_TRUST=1. Never because of something that the file or its neighbours say.
"""

from __future__ import annotations

import os
from pathlib import Path

HOW = "if you trust whoever made it, say kdiff.load(.., trust=True), or set KDIFF_TRUST=1"


def trusted(trust: bool | None) -> bool:
    return os.environ.get("KDIFF_TRUST") == "1" if trust is None else trust


def refuse(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} {why}; {HOW}")
