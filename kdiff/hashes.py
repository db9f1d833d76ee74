"""SHA-256 of files: the names that results carry for what they were made with."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def sha256_of_file(path: str | Path) -> str:
    """The hash of the bytes of any file. ValueError says why it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe may never end
            raise ValueError(f"{path} cannot be read: it is not a regular file")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def sha256_of_files(paths: Iterable[Path], folder: Path) -> str:
    """The hash of the files' hashes and their names in `folder`. Errors as in `sha256_of_file`."""
    named = {path: Path(os.path.relpath(path, folder)).as_posix() for path in sorted(paths)}
    lines = [f"{sha256_of_file(path)}  {name}\n" for path, name in named.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
