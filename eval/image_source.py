"""What a source of images is, and what every kind of source needs."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdiff.samplers.counts import whole_number

GREYSCALE = "greyscale images: their one channel is repeated to three"
PICKLED = "holds pickled Python objects, which kdiff never opens: save plain arrays"

# Whatever the decoders raise for data that is damaged, cut off, encrypted or not what it seems.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, NotImplementedError),
    *(Image.DecompressionBombError, zipfile.BadZipFile, zlib.error, struct.error),
)
Read = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """`n` images of one size (height, width), read from where they are only as they are asked for.

    `notes` are lines that belong beside any figure of these images. `opened()` is a context whose
    value maps numbers of images to uint8 `[len(numbers), height, width, 3]`.
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
        chosen = range(self.n) if indices is None else indices
        with self.opened() as read:
            for start in range(0, len(chosen), batch):
                yield read(chosen[start : start + batch])


def check_count(name: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"{name} has no images")
    if n == 1:
        raise ValueError(f"{name} has just one image; a distribution needs at least two")


def open_zip(path: Path) -> zipfile.ZipFile:
    with damage(path):
        return zipfile.ZipFile(path)


@contextmanager
def damage(where: Any) -> Iterator[None]:
    """One line, a ValueError, for whatever a damaged file makes its reader raise."""
    try:
        yield
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "pickle" in reason:
            raise ValueError(f"{where} {PICKLED}") from error
        raise ValueError(f"{where} cannot be read, it may be damaged: {reason}") from error
