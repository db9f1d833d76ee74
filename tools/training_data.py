"""Labelled images as arrays, from torchvision's copy or from a local file."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import click
import numpy as np

from kdiff.files import user_path

FILES = {"CIFAR10": "cifar-10-python.tar.gz", "MNIST": "the four *-ubyte.gz files in MNIST/raw"}


def load_cifar10(data: str | Path, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`images` uint8 [N, 32, 32, 3] and `labels` int64 [N]; see `load`."""
    return load("CIFAR10", data, train)


def load_mnist(data: str | Path, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`images` uint8 [N, 28, 28, 1] and `labels` int64 [N]; see `load`."""
    return load("MNIST", data, train)


def load(name: str, data: str | Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] and labels int64 [N], in the canonical order.

    `data` is an `.npz` with `train_images, train_labels, test_images, test_labels`, or the folder
    in which torchvision keeps (or will put, if it has to download it) its data set `name`.
    """
    data = user_path(data)
    if data.suffix == ".npz":
        if not data.is_file():
            raise click.UsageError(f"there is no file {data}")
        part = "train" if train else "test"
        try:
            with np.load(data, allow_pickle=False) as file:
                return file[f"{part}_images"], file[f"{part}_labels"].astype(np.int64)
        except (KeyError, ValueError, OSError, BadZipFile) as error:
            what = f"{part}_images and {part}_labels"
            raise click.UsageError(f"{data} is not an .npz with {what}: {error}") from error
    from torchvision import datasets

    try:
        found = getattr(datasets, name)(str(data), train=train, download=True)
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError alike
        raise click.UsageError(
            f"{name} is not in {data} and could not be downloaded ({error}); put {FILES[name]} "
            "there, or give --data an .npz (see tools/training_data.py)"
        ) from error
    images = np.asarray(found.data)
    return images.reshape(*images.shape[:3], -1), np.asarray(found.targets, dtype=np.int64)
