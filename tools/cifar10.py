"""CIFAR-10 as arrays, from torchvision's copy or from a local file."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def load_cifar10(data: str | Path, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`images` uint8 [N, 32, 32, 3] and `labels` int64 [N], in the canonical order.

    `data` is an `.npz` with `train_images, train_labels, test_images, test_labels`, or the folder
    in which torchvision keeps (or will put, if it has to download it) its CIFAR-10.
    """
    data = Path(data)
    if data.suffix == ".npz":
        if not data.is_file():
            raise click.UsageError(f"there is no file {data}")
        part = "train" if train else "test"
        with np.load(data, allow_pickle=False) as file:
            return file[f"{part}_images"], file[f"{part}_labels"].astype(np.int64)
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(data), train=train, download=True)
    except Exception as error:  # torchvision raises URLError, RuntimeError, OSError alike
        raise click.UsageError(
            f"CIFAR-10 is not in {data} and could not be downloaded ({error}); put "
            "cifar-10-python.tar.gz there, or give --data an .npz (see tools/cifar10.py)"
        ) from error
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)
