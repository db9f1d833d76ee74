"""Image files in a folder or a zip. Pixels are taken as they are stored: as in other FID libraries,
neither a colour profile nor EXIF's orientation is applied."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from kdiff.downloads import HEAD, check_head
from kdiff.eval.images.folder import choose_pictures, files_below, formats
from kdiff.eval.images.source import (
    GREYSCALE,
    Pictures,
    Read,
    check_claim,
    check_count,
    damage,
    open_zip,
)
from kdiff.run_folder import MOST_RECORD, Run, parse_run

JPEG = "JPEG files: their compression by itself changes FID (Parmar et al. 2022); PNG does not"
TURNED = "images that EXIF says to turn, taken as they are stored"
MORE = "files of several pictures (MPO, of cameras), of which the first is taken"
ORIENTATION = 0x0112  # EXIF's tag; 1: upright

Open = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class Files:
    """Files by their labels: a context that opens them, and the number of bytes that each has."""

    name: str
    labels: list[str]
    notes: list[str]
    opened: Callable[[], AbstractContextManager[Open]]
    stored: Callable[[str], int]


def from_folder(path: Path) -> Pictures:
    @contextmanager
    def opened() -> Iterator[Open]:
        yield lambda label: (path / label).open("rb")

    labels, notes = files_below(path)
    stored = lambda label: (path / label).stat().st_size  # noqa: E731
    return _of_files(Files(str(path), labels, notes, opened, stored))


def from_zip(path: Path) -> Pictures:
    @contextmanager
    def opened() -> Iterator[Open]:
        with open_zip(path) as archive:
            yield archive.open

    with open_zip(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    stored = {entry.filename: entry.compress_size for entry in entries}
    twice = [name for name, n in Counter(e.filename for e in entries).items() if n > 1]
    if twice:
        raise ValueError(f"{path} has several files named {twice[0]}")
    for entry in entries:
        check_claim(f"{path}: {entry.filename}", entry.file_size, entry.compress_size)
    return _of_files(Files(str(path), list(stored), [], opened, stored.__getitem__))


def _of_files(files: Files) -> Pictures:
    name, opened = files.name, files.opened
    with opened() as open_:
        labels, notes = choose_pictures(name, files.labels, partial(_run_of, name, open_))
        notes = [*files.notes, *notes]
        labels.sort(key=_natural)
        if not labels and notes:
            raise ValueError(f"{name} has no images ({'; '.join(notes)})")
        check_count(name, len(labels))
        headers = _headers(files, open_, labels)
    size = headers[0].size
    for label, header in zip(labels, headers, strict=True):
        if header.size != size:
            raise ValueError(
                f"{name} has images of several sizes ({labels[0]}: {_by(size)}, "
                f"{label}: {_by(header.size)}): bring them to one size first"
            )
    turned, more = sum(h.turned for h in headers), sum(h.more for h in headers)
    notes += [GREYSCALE] * any(h.greyscale for h in headers)
    notes += [JPEG] * any(h.jpeg for h in headers)
    notes += [f"{n:,} {what}" for n, what in ((turned, TURNED), (more, MORE)) if n]

    @contextmanager
    def reading() -> Iterator[Read]:
        with opened() as open_, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            decode = partial(_decode, name, open_)
            yield lambda numbers: np.stack(list(pool.map(decode, [labels[i] for i in numbers])))

    return Pictures(name, len(labels), size, tuple(notes), reading)


def _run_of(name: str, open_: Open, label: str) -> Run | None:
    with damage(f"{name}: {label}"), open_(label) as file:
        return parse_run(file.read(MOST_RECORD).decode("utf-8-sig", errors="replace"))


def _natural(label: str) -> tuple[str, str]:
    """Numbers sort by value; labels that are then equal sort by their characters."""
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(20), label), label


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    greyscale: bool
    jpeg: bool
    turned: bool
    more: bool


def _headers(files: Files, open_: Open, labels: list[str]) -> list[_Header]:
    with warnings.catch_warnings():  # Pillow warns of images that it takes for bombs
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [_header(files, open_, label) for label in labels]


def _header(files: Files, open_: Open, label: str) -> _Header:
    with _image(files.name, open_, label) as image:
        size = (image.height, image.width)
        header = _Header(
            size,
            image.mode in ("L", "1"),
            image.format in ("JPEG", "MPO"),
            _is_turned(image),
            _number(image) > 1,
        )
    check_claim(f"{files.name}: {label}", 3 * size[0] * size[1], files.stored(label))
    return header


def _is_turned(image: Image.Image) -> bool:
    if image.format == "TIFF":  # Pillow turns these
        return False
    try:
        exif = Image.Image.getexif(image)  # a PNG's own would decode it
        return exif.get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # EXIF may be anything, and the image be good
        return False


def _number(image: Image.Image) -> int:
    """How many pictures there are in the file: frames, pages, layers, or sizes of an icon."""
    return max(getattr(image, "n_frames", 1), len(image.info.get("sizes", ())))


def _decode(name: str, open_: Open, label: str) -> np.ndarray:
    with _image(name, open_, label) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def _image(name: str, open_: Open, label: str) -> Iterator[Image.Image]:
    where = f"{name}: {label}"
    with (
        damage(where),
        open_(label) as file,
        Image.open(_checked(file), formats=formats()) as image,
    ):
        objection = _objection(image)
        if objection is None:
            yield image
    if objection is not None:
        raise ValueError(f"{where} {objection}")


def _checked(file: IO[bytes]) -> IO[bytes]:
    check_head("it", file.read(HEAD))
    file.seek(0)
    return file


def _objection(image: Image.Image) -> str | None:
    """Why this image cannot be taken as 8-bit RGB or greyscale without changing what it shows."""
    if _number(image) > 1 and image.format != "MPO":
        return (
            f"has {_number(image)} pictures (frames, pages or layers), of which one would count: "
            "save each as a file of its own"
        )
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return (
            "has transparency: lay it on a background first, for example with "
            "`magick mogrify -background white -alpha remove -alpha off *.png`"
        )
    if _is_deep(image):
        return (
            "has more than 8 bits a channel: convert it first, for example with `magick -depth 8`"
        )
    if image.mode not in ("RGB", "L", "1", "P"):
        return f"is {image.mode}, neither RGB nor greyscale: convert it first"
    return None


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits a channel, which Pillow reads, of RGB files, as if there were just 8; only
    its instructions to the decoder tell (`RGB;16B`, or a greatest value above 255)."""
    tile = getattr(image, "tile", ())
    arguments = tile[0][3] if tile else ()
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    deep = image.format == "PPM" and any(isinstance(a, int) and a > 255 for a in arguments)
    return deep or image.mode.startswith(("I", "F")) or any(";16" in str(a) for a in arguments)
