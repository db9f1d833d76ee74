"""Files that commands write: checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def check_free(path: Path, overwrite: bool) -> None:
    """click.UsageError if the file cannot be written, or is there already."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise click.UsageError(f"{path} exists; choose another name, or add --overwrite")
    if path.exists() and not path.is_file():
        raise click.UsageError(f"{path} is not a file that can be replaced; choose another name")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.UsageError(f"cannot write into {folder}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file that the block writes. click.ClickException if either fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error
