"""Images on disk, or of a data set known by name, as batches of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from kdiff.data_folder import data_folder
from kdiff.downloads import check_file
from kdiff.eval.images.arrays import from_npy, from_npz
from kdiff.eval.images.files import from_folder, from_zip
from kdiff.eval.images.memory import from_memory
from kdiff.eval.images.source import Pictures
from kdiff.files import user_path

__all__ = ["Pictures", "open_pictures"]

CIFAR10 = {  # SHA-256 of the raw uint8 [N, 32, 32, 3], in the canonical order
    "train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
}


def open_pictures(
    path: str | Path | np.ndarray | Tensor, data: str | Path | None = None
) -> Pictures:
    """The images of an array, uint8 `[N, H, W, 3]`, or of float samples (see `from_memory`); of a
    folder and those below it, or of a zip, sorted by path (`2.png` before `10.png`); of an `.npy`,
    or of an `.npz` (`FILE.npz:KEY` says which of its arrays), uint8 `[N, H, W, 3 or 1]` or
    `[N, H, W]`, never unpickled; or `cifar10:train`, `cifar10:test`: `data` is then torchvision's
    folder of it, or an `.npz` with `train_images`, `test_images`.

    All files that Pillow reads are taken, through links too, and all headers are read first.
    `notes` count the files that are not evaluated, except those that operating systems leave.
    ValueError, in one line, if there is nothing there or only one image; if sizes differ; for
    several frames or pages, transparency, more than 8 bits or colours other than RGB; for arrays of
    another type or shape; for pictures that cannot be read or that a run.json does not name; for
    another CIFAR-10, for damage, and for a file that claims more pixels than it can hold.
    """
    if isinstance(path, (np.ndarray, Tensor)):
        return from_memory(path)
    text = str(path)
    if text.startswith("cifar10:"):
        return _cifar10(text.removeprefix("cifar10:"), data)
    file, colon, key = text.rpartition(".npz:")
    path, key = (user_path(file + ".npz"), key) if colon else (user_path(text), "")
    if path.is_dir():
        return from_folder(path)
    if not path.is_file():
        raise ValueError(f"there is no folder or file {path}")
    readers: dict[str, Callable[[Path], Pictures]] = {
        ".zip": from_zip,
        ".npz": partial(from_npz, key=key),
        ".npy": from_npy,
    }
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} is not a folder, .zip, .npz or .npy of images")
    check_file(path)
    return readers[path.suffix.lower()](path)


def _cifar10(part: str, data: str | Path | None) -> Pictures:
    if part not in CIFAR10:
        raise ValueError(f"there is cifar10:train and cifar10:test, not cifar10:{part}")
    where = data_folder() / "data" if data is None else user_path(data)
    if where.suffix == ".npz":
        found = open_pictures(f"{where}:{part}_images")
    else:
        found = from_memory(_torchvision(where, part))
    digest = hashlib.sha256()
    for images in found.batches(1000):
        digest.update(images.data)
    if digest.hexdigest() != CIFAR10[part]:
        raise ValueError(f"what is in {where} is not CIFAR-10's {part} set in the usual order")
    return Pictures(f"cifar10:{part}", found.n, found.size, found.notes, found.opened)


def _torchvision(folder: Path, part: str) -> np.ndarray:
    """Its copy, which it checks, in `folder`, or downloaded there."""
    try:
        from torchvision.datasets import CIFAR10 as Dataset  # noqa: N811
    except ImportError as error:
        raise ValueError(
            "cifar10 is read by torchvision, which is not installed: pip install torchvision, or "
            "give --data FILE.npz with train_images and test_images"
        ) from error
    try:
        return Dataset(str(folder), train=part == "train", download=True).data
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError alike
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"CIFAR-10 is not in {folder} and could not be downloaded ({reason}): put "
            "cifar-10-python.tar.gz there, or say with --data where it is"
        ) from error
