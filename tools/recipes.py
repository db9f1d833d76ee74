"""What tools/train.py can train, and how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from augment import LABELS
from training_data import load_cifar10, load_mnist

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SONG = {"name": "song_unet", "label_dim": 10, "label_dropout": 0.1}


@dataclass(frozen=True)
class Recipe:
    """A data set, a network, and the defaults of train.py's options.

    `augment` is the probability of each change in tools/augment.py. If it is None, images are only
    flipped left to right, if `flip`, and the network is not told.
    """

    load: Callable
    network: dict[str, Any]
    shape: tuple[int, int, int]
    classes: list[str]
    flip: bool = True
    augment: float | None = None
    sigma_data: float = 0.5
    kimg: float = 1000.0
    warmup_kimg: float = 10.0
    decay_kimg: float = 250.0
    batch: int = 64
    lr: float = 2e-3
    ema_kimg: tuple[float, ...] = (10.0, 30.0, 90.0)
    save_kimg: float = 20.0

    @property
    def config(self) -> dict[str, Any]:
        """What `kdiff.checkpoints.native` builds the model from."""
        return {
            "network": self.network,
            "precond": {"name": "edm", "sigma_data": self.sigma_data},
            "shape": list(self.shape),
            "classes": self.classes,
        }


RECIPES = {
    # 4.1 M parameters, 1.2 GFLOP an image: what two CPU cores can train in some hours.
    "cifar10": Recipe(
        load=load_cifar10,
        network={
            **SONG,
            "img_resolution": 32,
            "model_channels": 32,
            "channel_mult": [1, 2, 4],
            "num_blocks": 2,
            "attn_resolutions": [8],
            "dropout": 0.0,
        },
        shape=(3, 32, 32),
        classes=CIFAR10,
    ),
    # 9.0 M parameters, 4.5 GFLOP an image: twenty minutes of a large GPU.
    "cifar10-gpu": Recipe(
        load=load_cifar10,
        network={
            **SONG,
            "img_resolution": 32,
            "model_channels": 64,
            "channel_mult": [1, 2, 2],
            "num_blocks": 3,
            "attn_resolutions": [16],
            "dropout": 0.1,
            "augment_dim": LABELS,
        },
        shape=(3, 32, 32),
        classes=CIFAR10,
        augment=0.12,
        kimg=12_000.0,
        warmup_kimg=200.0,
        decay_kimg=4000.0,
        batch=512,
        lr=4e-3,
        ema_kimg=(100.0, 300.0, 900.0),
        save_kimg=1000.0,
    ),
    # 0.7 M parameters, 0.2 GFLOP an image: 45 minutes of one busy CPU core.
    "mnist": Recipe(
        load=load_mnist,
        network={
            **SONG,
            "img_resolution": 28,
            "in_channels": 1,
            "out_channels": 1,
            "model_channels": 16,
            "channel_mult": [1, 2, 4],
            "num_blocks": 1,
            "attn_resolutions": [7],
            "dropout": 0.0,
        },
        shape=(1, 28, 28),
        classes=list("0123456789"),
        flip=False,
        sigma_data=0.6,
        kimg=200.0,
        decay_kimg=120.0,
    ),
}
