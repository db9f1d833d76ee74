"""`cifar10-classifier`: a small network that knows CIFAR-10's ten classes, as a feature network.

It takes about a hundredth of Inception's arithmetic, for sweeps on a CPU. Its Frechet distance and
IS must not be compared with the numbers in papers, which are Inception's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from kdiff.eval.features.network import FeatureNetwork, Features, equal_parts, in_full_precision
from kdiff.eval.features.registry import FEATURES, Kind
from kdiff.hashes import sha256_of_file
from kdiff.models import ASSETS

NAME = "cifar10-classifier"
FILE = ASSETS / "features" / f"{NAME}.safetensors"
WIDTHS = (24, 64, 128, 208)
CLASSES = 10
SIZE = 32
BATCH = 64

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """Convolve, halve, convolve: `[N, C, H, W] -> [N, C', H // 2, W // 2]`."""

    def __init__(self, channels: int, width: int, norm: Norm):
        super().__init__()
        self.conv0 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm0 = norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm0(F.max_pool2d(self.conv0(x), 2)))
        return F.gelu(self.norm1(self.conv1(x)))


class Classifier(nn.Module):
    """`[N, 3, 32, 32]` in [-1, 1] -> features `[N, 336]` and logits `[N, 10]`.

    A narrower form of Jordan 2024 ("94% on CIFAR-10 in 3.29 seconds on a single GPU"): a 2 x 2
    convolution of whitened patches, three blocks, a linear layer on the largest value of
    each channel. The features are the mean of each channel of the second block (128: texture) and
    of the third (208: what is seen). `norm` is there for training alone; it is folded afterwards.
    """

    def __init__(self, norm: Norm = lambda _: nn.Identity()):
        super().__init__()
        self.whiten = nn.Conv2d(3, WIDTHS[0], 2)
        self.blocks = nn.ModuleList(Block(a, b, norm) for a, b in pairwise(WIDTHS))
        self.output = nn.Linear(WIDTHS[-1], CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.gelu(self.whiten(x))
        maps = [x := block(x) for block in self.blocks]
        features = torch.cat([m.mean((2, 3)) for m in maps[1:]], dim=1)
        return features, self.output(x.amax((2, 3)))


def to_input(images: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` -> `[N, 3, H, W]` in [-1, 1]."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def load() -> tuple[Classifier, str]:
    """The packaged network on the CPU, and the SHA-256 of its file."""
    network = Classifier()
    network.load_state_dict({key: value.float() for key, value in load_file(FILE).items()})
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return network, sha256_of_file(FILE)


def _feature_network(device: torch.device, logits: bool) -> FeatureNetwork:
    network, fingerprint = load()
    network.to(device)

    @in_full_precision
    def extract(images: np.ndarray) -> Features:
        if images.shape[1:3] != (SIZE, SIZE):
            raise ValueError(
                f"{NAME} takes images of 32 x 32, not {images.shape[1]} x {images.shape[2]}: "
                "choose --features inception"
            )
        parts = [
            network(to_input(torch.from_numpy(part).to(device)))
            for part in equal_parts(images, BATCH)
        ]
        pool, scores = (
            torch.cat(part)[: len(images)].cpu().numpy() for part in zip(*parts, strict=True)
        )
        return Features(pool, scores)

    return FeatureNetwork(NAME, None, fingerprint, extract)


FEATURES[NAME] = Kind(
    "small and fast, for images of 32 x 32; papers do not use it", _feature_network
)
