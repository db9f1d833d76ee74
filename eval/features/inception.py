"""The Inception-v3 of FID: the network of 2015-12-05, with batch normalisation folded away.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", as trained by
Google and used by Salimans et al. 2016 (IS) and Heusel et al. 2017 (FID). It differs from
torchvision's: 1008 classes, average pools that leave padding out, and a max pool in the last block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPSILON = 1e-3
SPATIAL_CHANNELS = 7  # of mixed_6/conv: what sFID looks at (Nash et al. 2021)


class Conv(nn.Conv2d):
    """Convolution, the folded batch normalisation's bias, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class Branches(nn.ModuleList):
    """The channels of all branches, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def conv(n: int, channels: int, kernel: int | tuple[int, int] = 1, stride: int = 1) -> Conv:
    """Same size with stride 1, no padding otherwise."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if stride == 1 else (0, 0)
    return Conv(n, channels, (height, width), stride, padding)


def average() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def mixed_35(n: int, pooled: int) -> Branches:
    return Branches(
        [
            conv(n, 64),
            nn.Sequential(conv(n, 48), conv(48, 64, 5)),
            nn.Sequential(conv(n, 64), conv(64, 96, 3), conv(96, 96, 3)),
            nn.Sequential(average(), conv(n, pooled)),
        ]
    )


def reduce_35(n: int) -> Branches:
    return Branches(
        [
            conv(n, 384, 3, stride=2),
            nn.Sequential(conv(n, 64), conv(64, 96, 3), conv(96, 96, 3, stride=2)),
            nn.MaxPool2d(3, 2),
        ]
    )


def mixed_17(n: int, c: int) -> Branches:
    row, column = (1, 7), (7, 1)
    return Branches(
        [
            conv(n, 192),
            nn.Sequential(conv(n, c), conv(c, c, row), conv(c, 192, column)),
            nn.Sequential(
                conv(n, c),
                conv(c, c, column),
                conv(c, c, row),
                conv(c, c, column),
                conv(c, 192, row),
            ),
            nn.Sequential(average(), conv(n, 192)),
        ]
    )


def reduce_17(n: int) -> Branches:
    return Branches(
        [
            nn.Sequential(conv(n, 192), conv(192, 320, 3, stride=2)),
            nn.Sequential(
                conv(n, 192),
                conv(192, 192, (1, 7)),
                conv(192, 192, (7, 1)),
                conv(192, 192, 3, stride=2),
            ),
            nn.MaxPool2d(3, 2),
        ]
    )


def mixed_8(n: int, pool: nn.Module) -> Branches:
    def split() -> Branches:
        return Branches([conv(384, 384, (1, 3)), conv(384, 384, (3, 1))])

    return Branches(
        [
            conv(n, 320),
            nn.Sequential(conv(n, 384), split()),
            nn.Sequential(conv(n, 448), conv(448, 384, 3), split()),
            nn.Sequential(pool, conv(n, 192)),
        ]
    )


class Inception(nn.Module):
    """`[N, 3, 299, 299]` in [-1, 1] -> pool3 features `[N, 2048]` and the part of mixed_6/conv that
    sFID takes, `[N, 17 * 17 * 7]`. `logits` are the last layer's, where the weights have one."""

    def __init__(self) -> None:
        super().__init__()
        self.to_mixed_6 = nn.Sequential(
            Conv(3, 32, 3, 2),
            Conv(32, 32, 3),
            conv(32, 64, 3),
            nn.MaxPool2d(3, 2),
            conv(64, 80),
            Conv(80, 192, 3),
            nn.MaxPool2d(3, 2),
            mixed_35(192, 32),
            mixed_35(256, 64),
            mixed_35(288, 64),
            reduce_35(288),
            mixed_17(768, 128),
            mixed_17(768, 160),
            mixed_17(768, 160),
        )
        self.to_pool_3 = nn.Sequential(
            mixed_17(768, 192),
            reduce_17(768),
            mixed_8(1280, average()),
            mixed_8(2048, nn.MaxPool2d(3, 1, 1)),
        )
        self.output: nn.Linear | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed_6 = self.to_mixed_6(x)
        # Rows, columns, channels, as TensorFlow has them: the order of published sFID statistics.
        spatial = mixed_6[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return self.to_pool_3(mixed_6).mean((2, 3)), spatial

    def logits(self, features: Tensor) -> Tensor:
        """`[N, 1008]`, without the bias, as Salimans et al.'s code and everyone since computes
        them."""
        if self.output is None:
            raise ValueError("these weights have no last layer")
        return F.linear(features, self.output.weight)
