"""Image files in a folder or a zip."""

from __future__ import annotations

import os
import re
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
from kdiff.eval.image_source import GREYSCALE, Pictures, Read, check_count, damage, open_zip

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
JPEG = "JPEG files: their compression by itself changes FID (Parmar et al. 2022); PNG does not"
GRID = "grid.png, the overview that `kdiff sample` made, is left out"

Open = Callable[[str], IO[bytes]]


def from_folder(path: Path) -> Pictures:
    @contextmanager
    def opened() -> Iterator[Open]:
        yield lambda label: (path / label).open("rb")

    # A link that leads nowhere is an image that is missing, not one image less.
    found = [f for f in path.rglob("*") if f.is_file() or (f.is_symlink() and not f.exists())]
    overviews = [f for f in found if f.name == "grid.png" and f.with_name("run.json").is_file()]
    labels = [f.relative_to(path).as_posix() for f in found if f not in overviews]
    return _of_files(str(path), labels, opened, [GRID] if overviews else [])


def from_zip(path: Path) -> Pictures:
    @contextmanager
    def opened() -> Iterator[Open]:
        with open_zip(path) as archive:
            yield archive.open

    with open_zip(path) as archive:
        labels = archive.namelist()
    return _of_files(str(path), labels, opened, [])


def _of_files(
    name: str,
    labels: list[str],
    opened: Callable[[], AbstractContextManager[Open]],
    notes: list[str],
) -> Pictures:
    labels = sorted(filter(_is_picture, labels), key=_natural)
    check_count(name, len(labels))
    with opened() as open_:
        headers = map(partial(_header, name, open_), labels)
        first = next(headers)
        greyscale, jpeg = first.greyscale, first.jpeg
        for label, header in zip(labels[1:], headers, strict=True):
            greyscale, jpeg = greyscale or header.greyscale, jpeg or header.jpeg
            if header.size != first.size:
                raise ValueError(
                    f"{name} has images of several sizes ({labels[0]}: {_by(first.size)}, "
                    f"{label}: {_by(header.size)}): bring them to one size first"
                )
    notes = [*notes, *[GREYSCALE] * greyscale, *[JPEG] * jpeg]

    @contextmanager
    def reading() -> Iterator[Read]:
        with opened() as open_, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            decode = partial(_decode, name, open_)
            yield lambda numbers: np.stack(list(pool.map(decode, [labels[i] for i in numbers])))

    return Pictures(name, len(labels), first.size, tuple(notes), reading)


def _is_picture(label: str) -> bool:
    """Not what operating systems and half-written files hide behind a dot, nor `__MACOSX`."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in label.split("/"))
    return label.lower().endswith(SUFFIXES) and not hidden


def _natural(label: str) -> tuple[str, str]:
    """Numbers sort by value; what is then equal, by its characters."""
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(20), label), label


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    greyscale: bool
    jpeg: bool


def _header(name: str, open_: Open, label: str) -> _Header:
    with _image(name, open_, label) as image:
        size = (image.height, image.width)
        return _Header(size, image.mode in ("L", "1"), image.format in ("JPEG", "MPO"))


def _decode(name: str, open_: Open, label: str) -> np.ndarray:
    with _image(name, open_, label) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def _image(name: str, open_: Open, label: str) -> Iterator[Image.Image]:
    where = f"{name}: {label}"
    with damage(where), open_(label) as file, Image.open(_checked(file)) as image:
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
