"""Images in an array: an `.npy`, or one of an `.npz`, read batch by batch and never unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from kdiff.eval.images.npy import Members, read_header
from kdiff.eval.images.source import (
    GREYSCALE,
    PICKLED,
    Pictures,
    Read,
    check_claim,
    check_count,
    check_pixels,
    damage,
    open_zip,
)

ARRAYS = ("arr_0", "images")  # where an .npz keeps its images, unless it has but one array


def from_npy(path: Path) -> Pictures:
    size = path.stat().st_size
    return _of_array(str(path), lambda: open(path, "rb"), size, size)


def from_npz(path: Path, key: str) -> Pictures:
    members = Members(path)
    name, key = str(path), key or _choose_array(members)
    if key not in members:
        raise ValueError(f"{path} has no array {key!r}; it has {', '.join(members) or 'none'}")

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with open_zip(path) as archive, archive.open(f"{key}.npy") as stream:
            yield stream

    name = name if len(members.entries) == 1 else f"{name}:{key}"
    return _of_array(name, opened, members.entries[key].file_size, members.stored(key))


def _choose_array(members: Members) -> str:
    """The one that is called as images are, or that is alone, unless others could be meant."""
    path, keys = members.path, list(members)
    for key in (*ARRAYS, *(keys if len(keys) == 1 else [])):
        if key in keys:
            meant = [k for k in keys if k == key or _looks_like_images(members, k)]
            if len(meant) > 1:
                raise ValueError(
                    f"{path} has several arrays of images, {', '.join(meant)}: say which, as "
                    f"{path.name}:{key}"
                )
            return key
    raise ValueError(
        f"{path} has {', '.join(keys) if keys else 'no arrays'}: say which are the images, as "
        f"{path.name}:{next((k for k in keys if 'image' in k), 'KEY')}"
    )


def _looks_like_images(members: Members, key: str) -> bool:
    header = members.header(key)
    return header.dtype == np.uint8 and len(header.shape) == 4


def _of_array(
    name: str,
    opened: Callable[[], AbstractContextManager[IO[bytes]]],
    file_size: int,
    stored: int,
) -> Pictures:
    """An array in NumPy's file format; it is read image by image, never as a whole."""
    with damage(name), opened() as stream:
        shape, fortran, dtype, start = read_header(stream)
    _check_array(name, shape, fortran, dtype)
    shape = shape if len(shape) == 4 else (*shape, 1)
    n, height, width, channels = shape
    length = height * width * channels
    if file_size < start + n * length:
        raise ValueError(f"{name} is cut off: it says {n} images, but does not hold them")
    check_pixels(name, height, width)
    check_claim(f"{name}: an image", length, stored / n)

    @contextmanager
    def reading() -> Iterator[Read]:
        with damage(name), opened() as stream:
            stream.read(start)  # not a seek, after which a zip's checksum would go unchecked

            def read(numbers: Sequence[int]) -> np.ndarray:
                offsets = [start + i * length for i in numbers]
                images = b"".join(_read_at(stream, offset, length) for offset in offsets)
                array = np.frombuffer(images, np.uint8).reshape(-1, height, width, channels)
                return np.broadcast_to(array, (*array.shape[:3], 3)).copy()

            yield read

    return Pictures(name, n, (height, width), (GREYSCALE,) if channels == 1 else (), reading)


def _check_array(name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise ValueError(f"{name} {PICKLED}")
    if dtype != np.uint8:
        raise ValueError(
            f"{name} holds {dtype}; images must be uint8, 0 to 255: save np.rint(255 * x) of x in "
            "[0, 1], np.rint(127.5 * x + 127.5) of x in [-1, 1], clipped, as uint8"
        )
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise ValueError(
            f"{name} is [N, C, H, W] {list(shape)}; images must be [N, H, W, C]: save "
            "x.transpose(0, 2, 3, 1)"
        )
    if len(shape) == 4 and shape[3] == 4:
        raise ValueError(f"{name} is RGBA {list(shape)}: lay it on a background, and save RGB")
    grey = len(shape) == 3 and shape[2] > 4  # [H, W, 3] would be a single image
    if not grey and not (len(shape) == 4 and shape[3] in (1, 3)):
        raise ValueError(f"{name} is {list(shape)}; images must be [N, H, W, 3 or 1] or [N, H, W]")
    if fortran:
        raise ValueError(f"{name} is in Fortran's order: save np.ascontiguousarray(x)")
    if min(shape[1:]) < 1:
        raise ValueError(f"{name} is {list(shape)}: images without pixels")
    check_count(name, shape[0])


def _read_at(stream: IO[bytes], offset: int, length: int) -> bytes:
    stream.seek(offset)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("it ends early")
    return data
