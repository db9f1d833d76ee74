"""The folder of `kdiff sample`: checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from kdiff.run_folder import OVERVIEW, RECORD, files_of_run


def beside(out: Path, film: Path | None) -> str | None:
    """The name of the trajectory if it is in the folder of the pictures, else None."""
    return film.name if film is not None and film.parent.resolve() == out.resolve() else None


def check_trajectory(film: Path | None, out: Path, overwrite: bool) -> None:
    if film is None:
        return
    if film.suffix.lower() != ".gif":
        raise click.UsageError(f"--trajectory writes a .gif, not {str(film)!r}")
    if film.parent != out:
        check_writable(film.parent)
    if film.is_dir() or (film.exists() and not overwrite):
        raise click.UsageError(f"{film} exists; choose another name, or add --overwrite")


def prepare_folder(out: Path, overwrite: bool) -> list[Path]:
    """Make the folder, and check that it can be written into. Return the files of an earlier run in
    it, to be deleted when the first of this run are there."""
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out {out} is a file, not a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise click.UsageError(f"{out} is not empty; choose another --out, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"cannot make the folder {out}: {error.strerror}") from error
    check_writable(out)
    earlier = files_of_run(out)
    for name in (RECORD, OVERVIEW):  # they are about the earlier run
        if (out / name).is_file():
            (out / name).unlink()
    return earlier


def new_folders(out: Path) -> list[Path]:
    """Those that `prepare_folder` will make, the innermost first."""
    return [folder for folder in (out, *out.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """A run that fails before its first picture leaves no empty folders."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def check_writable(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.UsageError(f"cannot write into {folder}")
