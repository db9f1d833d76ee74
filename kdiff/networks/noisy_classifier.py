"""A small residual network that classifies noisy images: what `tools/train_classifier.py --noisy`
trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 16


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Block(nn.Module):
    """`[N, C, H, W] -> [N, C', H / 2, W / 2]`: skip + conv(silu(norm(conv(silu(norm(x)))))), where
    the embedding of the noise level scales and shifts the output of the second norm."""

    def __init__(self, channels: int, width: int, emb_channels: int):
        super().__init__()
        self.norm0, self.norm1 = norm(channels), norm(width)
        self.conv0 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.affine = nn.Linear(emb_channels, 2 * width)
        self.skip = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.avg_pool2d(F.silu(self.norm0(x)), 2))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        return self.skip(F.avg_pool2d(x, 2)) + self.conv1(F.silu(h))


class NoisyClassifier(nn.Module):
    """`network(x, c_noise) -> logits`: c_in (x0 + sigma n) `[N, *shape]` and ln(sigma) / 4 `[N]`
    (Karras et al. 2022, table 1) -> `[N, classes]`.

    The logits are F / sqrt(1 + sigma^2): where sigma is large, a class shifts the mean of the input
    by about 1 / sigma, and the true logits fall like that. Everything from x to the logits is
    smooth.
    """

    def __init__(self, shape: Sequence[int], classes: int, widths: Sequence[int]):
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        self.config = {"shape": list(shape), "classes": classes, "widths": list(widths)}
        channels, height, width = shape
        halvings = 2 ** (len(widths) - 1)
        if height % halvings or width % halvings:
            raise ValueError(
                f"images of {height} x {width} cannot be halved {len(widths) - 1} times"
            )
        emb_channels = 4 * FREQUENCIES
        self.embed = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, emb_channels),
            nn.SiLU(),
            nn.Linear(emb_channels, emb_channels),
        )
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(Block(a, b, emb_channels) for a, b in pairwise(widths))
        self.norm = norm(widths[-1])
        positions = (height // halvings) * (width // halvings)
        self.output = nn.Linear(widths[-1] * positions, classes)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        emb = F.silu(self.embed(frequencies(c_noise).to(x.dtype)))
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, emb)
        logits = self.output(F.silu(self.norm(h)).flatten(1))
        return logits / (1 + (8 * c_noise).exp()).sqrt()[:, None]


def frequencies(c_noise: Tensor) -> Tensor:
    """`[N] -> [N, 2 FREQUENCIES]`: cosines and sines, from half a turn over the range of c_noise,
    which is about three long, to eight times as fast."""
    rates = torch.logspace(0, 3, FREQUENCIES, 2, dtype=c_noise.dtype, device=c_noise.device)
    angle = torch.outer(c_noise, rates * (math.pi / 3))
    return torch.cat([angle.cos(), angle.sin()], dim=1)
