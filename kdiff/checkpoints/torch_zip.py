"""Files of `torch.save`: read without running code, and their tensors put into a network."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdiff.checkpoints.weights import load_weights

OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MADV_PAGEOUT = 21  # since Linux 5.4; it never loses data, and other systems ignore it

Network = TypeVar("Network", bound=nn.Module)


def read(path: Path) -> Any:
    """The value saved at `path`. Its tensors stay on disk: they are mapped, and read when used.

    Only containers, numbers, strings and tensors are made. ValueError for anything else.
    """
    if not path.is_file():
        raise ValueError("not a file")
    with open(path, "rb") as file:
        head = file.read(len(OLD))
    if head == OLD:
        raise ValueError("of torch.save before its version 1.6: load it there, and save it again")
    if not head.startswith(b"PK\x03\x04"):
        raise ValueError("not a zip archive, which torch.save writes since 1.6")
    try:
        with zipfile.ZipFile(path) as archive:  # a compressed member could unpack to any size
            if any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist()):
                raise ValueError("a compressed zip archive")
            if _directory(path) != archive.start_dir:
                raise ValueError("a zip archive with something before or behind it")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged or hostile file may break the parser in any way
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        if isinstance(error, zipfile.BadZipFile):
            reason = "its end is missing or damaged: download or write it again"
        if isinstance(error, UnpicklingError):  # torch's text tells how to run the file
            named = re.search(r"GLOBAL ([\w.]{1,80}) ", str(error))
            which = named[1] if named else "such as a whole module"
            reason = f"it has other objects in it ({which}): save just the network's state_dict()"
        raise ValueError(f"not a torch.save file of tensors alone: {reason}") from error


def _directory(path: Path) -> int | None:
    """Where a zip archive's end record places its directory. None unless all readers agree on which
    record that is: torch's reader must find the directory that Python's has found."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 98))
        tail = file.read()
    end64, locator, end = tail[-98:-42], tail[-42:-22], tail[-22:]
    if end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":  # a comment could follow it
        return None
    if locator[:4] != b"PK\x06\x07":
        return int.from_bytes(end[16:20], "little")
    if end64[:4] != b"PK\x06\x06" or int.from_bytes(locator[8:16], "little") != size - 98:
        return None
    return int.from_bytes(end64[48:], "little")


def tensors_under(prefix: str, saved: Any) -> dict[str, Tensor]:
    """The tensors of a state dict whose names begin with `prefix`, without it. Empty if `saved` is
    not a dict."""
    if not isinstance(saved, Mapping):
        return {}
    return {
        key.removeprefix(prefix): value
        for key, value in saved.items()
        if isinstance(key, str) and key.startswith(prefix) and isinstance(value, Tensor)
    }


def fill(
    path: Path,
    make: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> Network:
    """`make()` with `tensors`, of the file at `path`, as its weights (see `load_weights`). They are
    copies, because checkpoints get overwritten, and a process that then reads a mapping of the
    file is killed. ValueError unless names and shapes are exactly the network's, and all values
    are in the file."""
    # A view can claim any shape over a few bytes: such a tensor would fill the memory later.
    claimed = sum(value.nbytes for value in tensors.values())
    plain = all(v.device.type == "cpu" and v.layout == torch.strided for v in tensors.values())
    if not plain or claimed > path.stat().st_size:
        raise ValueError(f"{path}: its tensors are not stored in the file")
    try:
        with torch.device("meta"):  # no memory and no random numbers for replaced weights
            network = make()
        load_weights(network, _one_by_one(tensors), dtype)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its tensors do not fit: {reason}") from error
    return network


def _one_by_one(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tell the system that the pages of a copied tensor are not needed soon. Otherwise they count
    as this process's memory until the mapping goes."""
    for name, value in tensors.items():
        yield name, value
        if sys.platform == "linux" and value.nbytes >= mmap.PAGESIZE:
            start = -(-value.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            size = (value.data_ptr() + value.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
            if size > 0:
                ctypes.CDLL(None).madvise(
                    ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_PAGEOUT
                )
