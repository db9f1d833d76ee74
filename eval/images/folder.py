"""Which files of a folder or a zip are pictures to evaluate, and notes on all other files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import Image

from kdiff.run_folder import OVERVIEW, RECORD, Run

# What operating systems leave everywhere; every other file that is not evaluated is counted.
DEBRIS = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")
# Data of other kinds that Pillow registers, and EPS, for which it would start another program.
NO_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
UNREADABLE = (
    *(".ai", ".arw", ".avif", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".exr", ".hdr", ".heic"),
    *(".heif", ".jp2", ".jxl", ".nef", ".orf", ".ps", ".raf", ".svg", ".svgz", ".webp", ".wmf"),
    *(".xcf",),
)
SHOWN = 3  # names in a message


@cache
def formats() -> tuple[str, ...]:
    """The formats that the installed Pillow reads as pictures."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NO_PICTURES)


@cache
def _suffixes() -> tuple[str, ...]:
    known = (*formats(), "MPO")  # which is read as a JPEG
    return tuple(end for end, name in Image.registered_extensions().items() if name in known)


def _is_picture(label: str) -> bool:
    return label.lower().endswith(_suffixes())


def some(labels: Sequence[str]) -> str:
    """The first names of a list, in a form that fits a line: `a.txt, b.txt, ..`."""
    shown = [label if label.isprintable() else ascii(label) for label in sorted(labels)[:SHOWN]]
    return ", ".join([*shown, *[".."] * (len(labels) > SHOWN)])


def files_below(root: Path) -> tuple[list[str], list[str]]:
    """The files in a folder and below it, as paths relative to it, and notes for its figures.

    Links are followed. A file or folder that is reached twice counts once, under its own path, so
    links that form a loop end; a note counts these links. Hidden folders are listed, but not
    searched. ValueError if a folder cannot be read, if a link leads nowhere, or if a picture is a
    pipe, a socket or a device.
    """
    found: list[str] = []
    odd: list[str] = []
    linked: list[tuple[str, str]] = []
    real_files: set[str] = set()
    real_folders: set[str] = set()
    repeated = 0
    folders = deque([""])  # those behind links come last, after all that are really here
    while folders:
        label = folders.popleft()
        real = os.path.realpath(root / label)
        if real in real_folders:
            repeated += 1
            continue
        real_folders.add(real)
        for entry in _entries(root, label):
            own = f"{label}/{entry.name}" if label else entry.name
            _check_entry(root, own, entry)
            if _is_hidden(entry.name):
                found.append(own)
            elif not (entry.is_dir() or entry.is_file()):
                odd.append(own)
            elif entry.is_dir():
                (folders.append if entry.is_symlink() else folders.appendleft)(own)
            elif entry.is_symlink():
                linked.append((own, os.path.realpath(entry.path)))
            else:
                found.append(own)
                real_files.add(f"{real}/{entry.name}")
    for own, target in linked:
        repeated += target in real_files
        found += [own] * (target not in real_files)
        real_files.add(target)
    again = f"links to what is read already are left out: {repeated}; each image counts once"
    return found, [*[again] * bool(repeated), *_left_out("pipes, sockets or devices", odd)]


def _entries(root: Path, label: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / label) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"{root}: the folder {label or '.'} cannot be read: {error.strerror}"
        ) from error


def _check_entry(root: Path, label: str, entry: os.DirEntry[str]) -> None:
    if _is_hidden(entry.name):
        return
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise ValueError(f"{root}: {label} cannot be read: the link leads nowhere")
    if _is_picture(label) and not (entry.is_dir() or entry.is_file()):
        raise ValueError(f"{root}: {label} cannot be read: it is a pipe, a socket or a device")


def choose_pictures(
    name: str, labels: Iterable[str], run_of: Callable[[str], Run | None]
) -> tuple[list[str], list[str]]:
    """The files of a folder that are to be evaluated, and notes that count all others.

    `run_of` reads a run.json. The overview and the trajectory of a run of `kdiff sample` are left
    out. ValueError if the run has more or fewer pictures than its run.json names, or if there are
    pictures in formats that cannot be read.
    """
    labels = [label for label in labels if not _is_debris(label)]
    hidden = [label for label in labels if any(map(_is_hidden, label.split("/")))]
    rest = sorted(set(labels) - set(hidden))
    records = {str(PurePosixPath(x).parent): x for x in rest if PurePosixPath(x).name == RECORD}
    own = {_join(folder, OVERVIEW) for folder in records}
    runs = {folder: run_of(label) for folder, label in records.items()}
    for folder, run in runs.items():
        if run is not None and run.trajectory:
            own.add(_join(folder, run.trajectory))
    pictures = [label for label in rest if _is_picture(label) and label not in own]
    others = [label for label in rest if not _is_picture(label) and label not in records.values()]
    unreadable = [label for label in others if label.lower().endswith(UNREADABLE)]
    if unreadable:
        raise ValueError(
            f"{name} has pictures that cannot be read ({some(unreadable)}): convert them to PNG "
            "first, or move them elsewhere"
        )
    for folder, run in runs.items():
        if run is not None:
            _check_run(name, folder, run, pictures)
    overviews = [label for label in own & set(rest) if label.endswith(OVERVIEW)]
    notes = [
        *[f"{OVERVIEW}, the overview that `kdiff sample` made, is left out"] * bool(overviews),
        *_left_out("hidden", hidden),
        *_left_out("no pictures", others),
    ]
    return pictures, notes


def _left_out(what: str, labels: Sequence[str]) -> list[str]:
    return [f"left out as {what}: {len(labels):,} ({some(labels)})"] if labels else []


def _check_run(name: str, folder: str, run: Run, pictures: Sequence[str]) -> None:
    there = {PurePosixPath(x).name for x in pictures if str(PurePosixPath(x).parent) == folder}
    where = f"{name}: {_join(folder, RECORD)} names {len(run.pictures):,} pictures"
    missing, extra = sorted(run.pictures - there), sorted(there - run.pictures)
    if missing:
        raise ValueError(
            f"{where}, but {len(missing):,} of them are missing ({some(missing)}): run `kdiff "
            f"sample` again, or remove {RECORD} if these are the images to evaluate"
        )
    if extra:
        raise ValueError(
            f"{where}, but there are {len(extra):,} others ({some(extra)}), perhaps of an earlier "
            f"run: move them elsewhere, or remove {RECORD} if all belong together"
        )


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _is_debris(label: str) -> bool:
    return any(part in DEBRIS or part.startswith("._") for part in label.split("/"))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in DEBRIS
