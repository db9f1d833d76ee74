"""A source of images, and the checks that every kind of source needs."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdiff.counts import whole_number
from kdiff.messages import one_line

GREYSCALE = "greyscale images: their one channel is repeated to three"
PICKLED = "holds pickled Python objects, which kdiff never opens: save plain arrays"

MOST_PIXELS = 2**24  # bytes: an image of this size is believed, however well it is compressed
MOST_RATIO = 100  # of a larger claim to the bytes in the file; pictures have 1 to 20

Read = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """`n` images of one size (height, width), read from where they are only as they are asked for.

    `notes` are lines to show with any figure of these images. `opened()` is a context whose value
    maps numbers of images to uint8 `[len(numbers), height, width, 3]`.
    """

    name: str
    n: int
    size: tuple[int, int]
    notes: tuple[str, ...]
    opened: Callable[[], AbstractContextManager[Read]]

    def __len__(self) -> int:
        return self.n

    def batches(self, batch: int, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """uint8 `[<= batch, height, width, 3]`, of all images or those numbered `indices`, in that
        order (rising is fastest). Greyscale is repeated to three channels, as every FID library
        does, which `notes` says. ValueError if the data turns out to be damaged."""
        batch = whole_number("the batch", batch, 1)
        numbers = range(self.n)
        chosen = numbers if indices is None else [numbers[i] for i in indices]
        with self.opened() as read:
            for start in range(0, len(chosen), batch):
                yield read(chosen[start : start + batch])


def check_count(name: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"{name} has no images")
    if n == 1:
        raise ValueError(f"{name} has just one image; a distribution needs at least two")


def check_claim(where: str, claimed: int, stored: float, believed: int = MOST_PIXELS) -> None:
    """ValueError if `claimed` bytes, for which the file has `stored`, look like a decompression
    bomb: what a file says of its size is not trusted."""
    if claimed > believed and claimed > MOST_RATIO * stored:
        raise ValueError(
            f"{where} claims {claimed:,} bytes, of which the file has {stored:,.0f}: it is "
            "damaged, or made to fill the memory"
        )


def check_pixels(where: str, height: int, width: int) -> None:
    """ValueError if an image is larger than Pillow takes one to be."""
    if height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ValueError(f"{where} claims images of {width} x {height} pixels: they are too large")


def open_zip(path: Path) -> zipfile.ZipFile:
    with damage(path):
        return zipfile.ZipFile(path)


@contextmanager
def damage(where: Any) -> Iterator[None]:
    """Turn whatever a reader raises into a ValueError of one line: decoders raise anything for data
    that are cut off, encrypted or in another format."""
    try:
        yield
    except Exception as error:
        reason = one_line(error, 200)
        if "pickle" in reason:
            raise ValueError(f"{where} {PICKLED}") from error
        raise ValueError(f"{where} cannot be read, it may be damaged: {reason}") from error
