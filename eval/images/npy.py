"""NumPy's file format, read without trusting its headers, and never unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from kdiff.eval.images.source import PICKLED, check_claim, damage, open_zip

MAGIC = b"\x93NUMPY"
MOST_HEADER = 10_000  # bytes; NumPy's own limit
MOST_STATISTICS = 2**26  # bytes: an array of this size is believed, however well it is compressed


class Header(NamedTuple):
    """An array's header; the data begin at byte `start`."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def read_header(stream: IO[bytes]) -> Header:
    """Reading it executes nothing, and takes no more bytes than a header has. ValueError if it is
    not NumPy's."""
    begin = stream.read(len(MAGIC) + 2)
    if not begin.startswith(MAGIC) or len(begin) < len(MAGIC) + 2:
        raise ValueError("it is not in NumPy's format, or ends early")
    width = 2 if begin[len(MAGIC)] == 1 else 4
    size = stream.read(width)
    length = int.from_bytes(size, "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header claims {length:,} bytes")
    header = io.BytesIO(size + stream.read(length))
    known = np.lib.format
    read = known.read_array_header_1_0 if width == 2 else known.read_array_header_2_0
    shape, fortran, dtype = read(header)
    if not all(0 <= size < 2**63 for size in shape):
        raise ValueError("its shape has sizes below 0, or beyond all files")
    if dtype.itemsize == 0:
        raise ValueError("its elements have no bytes")
    return Header(tuple(map(int, shape)), fortran, dtype, len(begin) + width + length)


class Members:
    """The arrays of an `.npz`, by name. ValueError if it is not one."""

    def __init__(self, path: Path):
        self.path = path
        with open_zip(path) as archive:
            listed = archive.infolist()
        self.entries: dict[str, zipfile.ZipInfo] = {
            entry.filename.removesuffix(".npy"): entry
            for entry in listed
            if entry.filename.endswith(".npy")
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def stored(self, key: str) -> int:
        """The bytes that the file has for an array, whatever it claims."""
        return min(self.entries[key].compress_size, self.path.stat().st_size)

    def header(self, key: str) -> Header:
        with damage(f"{self.path}:{key}"), self._open(key) as stream:
            return read_header(stream)

    @contextmanager
    def _open(self, key: str) -> Iterator[IO[bytes]]:
        with open_zip(self.path) as archive, archive.open(f"{key}.npy") as stream:
            yield stream

    def read(self, key: str) -> np.ndarray:
        """A whole array. ValueError if it is damaged, pickled, or claims more than the file can
        sensibly hold."""
        with damage(self.path), self._open(key) as stream:
            header = read_header(stream)
            if header.dtype.hasobject:
                raise ValueError(PICKLED)
            size = math.prod(header.shape) * header.dtype.itemsize
            check_claim(f"its {key}", size, self.stored(key), MOST_STATISTICS)
            if self.entries[key].file_size < header.start + size:
                raise ValueError("it ends early")
            data = stream.read(size)
            if len(data) < size or stream.read(1):  # which also has the checksum looked at
                raise ValueError("it ends early or late")
        array = np.frombuffer(data, header.dtype)
        if header.fortran:
            return array.reshape(header.shape[::-1]).transpose()
        return array.reshape(header.shape)
