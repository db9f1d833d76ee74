"""Pickles as inert data: a file's settings, and its tensors, each read when it is asked for.

Nothing that a file names runs; see `pickle_machine`. The bytes of a storage have the format in
which torch.save wrote before version 1.6.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from kdiff.checkpoints import MissingSetting, one_line
from kdiff.checkpoints.pickle_machine import OUTER, STORAGE, Machine, Record, Span, TensorRecord

_TORCH_MAGIC, _TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Pickle:
    """The pickle in `file`: `value` is what it holds, made of dicts, lists, tuples, numbers, texts,
    `Span`, `Record` and `TensorRecord`. See `opened`."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.value = Machine(file, os.fstat(file.fileno()).st_size, OUTER).run()
        self.used: set[Span] = set()

    def tensor(self, record: TensorRecord) -> Tensor:
        """Read a tensor. ValueError if it is damaged, shares its storage with another one, or would
        need more memory than it takes in the file."""
        kind, start, count = self._storage(record.span)
        _check_view(record, count)
        raw = _memory(count * kind.itemsize)
        self.file.seek(start)
        if self.file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
            raise ValueError("it ends too soon")
        flat = torch.frombuffer(raw, dtype=kind)
        return flat.as_strided(record.shape, record.stride, record.offset)

    def array(self, record: Record) -> np.ndarray:
        """A numpy array of numbers."""
        _, shape, dtype, fortran, span = record.state
        kind = np.dtype(dtype.args[0])
        if kind.kind not in "fiu" or type(span) is not Span:
            raise ValueError("it has an array of something else than numbers")
        flat = np.frombuffer(span.read(self.file), kind)
        return flat.reshape(shape, order="F" if fortran else "C")

    def _storage(self, span: Span) -> tuple[torch.dtype, int, int]:
        """The dtype of a storage, where its values start in the file, and how many there are: five
        pickles (the last but one describes it), the number of values, the values."""
        # With shared storages, the file's size would not limit the memory.
        if type(span) is not Span or span in self.used:
            raise ValueError("it has a tensor without a storage of its own")
        self.used.add(span)
        end = span.start + span.size
        self.file.seek(span.start)
        magic, protocol, system, storage, _ = (
            Machine(self.file, end, STORAGE).run() for _ in range(5)
        )
        if magic != _TORCH_MAGIC or protocol != _TORCH_PROTOCOL or not system["little_endian"]:
            raise ValueError("it has a storage that is not of torch.save and little-endian")
        _, name, _, _, claimed, view = storage
        dtype, (count,) = STORAGE[name.name], struct.unpack("<Q", self.file.read(8))
        start = self.file.tell()
        if claimed != count or view is not None or count * dtype.itemsize != end - start:
            raise ValueError(f"it has a storage of {span.size:,} bytes for {count:,} values")
        return dtype, start, count


def _memory(size: int) -> mmap:
    """Memory that goes back to the system completely when it is released."""
    try:
        return mmap(-1, size)
    except OSError as error:
        raise MemoryError(error) from error


def _check_view(record: TensorRecord, count: int) -> None:
    """ValueError unless the tensor is inside its storage of `count` values, and has no more
    elements than that (an expanded one has, and grows when it is copied)."""
    shape, stride = record.shape, record.stride
    if not all(type(n) is int and n >= 0 for n in (record.offset, *shape, *stride)):
        raise TypeError
    elements = math.prod(shape)
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if not 0 < elements <= count or record.offset + reach > count:
        raise ValueError(f"it has a tensor of {elements:,} values in a storage of {count:,}")


@contextmanager
def opened(path: str | Path) -> Iterator[Pickle]:
    """The `Pickle` in the file at `path`. Any fault of the file, found here or in the block that
    reads from it, is a ValueError in one line."""
    try:
        with open(path, "rb") as file:
            yield Pickle(file)
    except MissingSetting as error:
        raise MissingSetting(f"{path}: {error}") from error
    except ValueError as error:
        reason = one_line(error, 200)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        struct.error,
    ) as error:
        reason = f"damaged, or no network's pickle ({type(error).__name__}: {one_line(error, 160)})"
    else:
        return
    raise ValueError(f"{path} was not loaded, and nothing in it ran: {reason}")
