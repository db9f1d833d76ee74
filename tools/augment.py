"""Augmentation that does not leak: the network is told how each image was changed, and when it
samples, that nothing was (Karras et al. 2022, appendix F.2 and table 6; Jun et al. 2020).

One label differs from the paper. A stretch s along the axis at angle t gets the label
s (cos 2 t, sin 2 t). Like the stretch itself, this label is the same for (s, t) and
(-s, t + pi / 2). With s (cos t, sin t), a stretch and its inverse would share labels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LABELS = 9  # flips 2, scaling 1, rotation 2, anisotropy 2, translation 2
SPREAD = 0.2  # of the binary logarithm of scaling and anisotropy
SHIFT = 0.125  # of the translation, in image sizes


def augment(images: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """`images` `[N, C, H, W]` flipped, scaled, turned, stretched and shifted, and the labels
    `[N, 9]`, all zero for an image that was left alone.

    Left to right every image is flipped with probability 1/2; each other change is made with
    `probability`. Mirrored at the borders, bicubic.
    """
    n, device = len(images), images.device

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, device=device)

    def chosen(p: float) -> Tensor:
        return (torch.rand(n, device=device) < p).float()

    flip_x, flip_y = chosen(0.5), chosen(probability / 2)
    scale = normal(n) * chosen(probability)
    angle = (torch.rand(n, device=device) * 2 - 1) * math.pi * chosen(probability)
    axis = (torch.rand(n, device=device) * 2 - 1) * math.pi * chosen(0.5)
    stretch = normal(n) * chosen(probability)
    shift = normal(n, 2) * chosen(probability)[:, None]

    # What is sampled at p is the image at A^-1 (p - moved), where A = mirror, scale, turn, stretch.
    size, ratio = torch.exp2(SPREAD * scale), torch.exp2(SPREAD * stretch)
    unstretch = rotation(axis) @ diagonal(1 / ratio, ratio) @ rotation(-axis)
    inverse = (
        unstretch @ rotation(angle) @ diagonal((1 - 2 * flip_x) / size, (1 - 2 * flip_y) / size)
    )
    moved = 2 * SHIFT * shift  # in the coordinates of grid_sample an image is two wide
    labels = torch.stack(
        [
            *(flip_x, flip_y, scale, angle.cos() - 1, angle.sin()),
            *(stretch * (2 * axis).cos(), stretch * (2 * axis).sin(), shift[:, 0], shift[:, 1]),
        ],
        dim=1,
    )
    affine = torch.cat([inverse, -inverse @ moved[..., None]], dim=2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    changed = F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False)
    untouched = (labels[:, 1:] == 0).all(1)[:, None, None, None]
    flipped = torch.where(flip_x[:, None, None, None] > 0, images.flip(3), images)
    return torch.where(untouched, flipped, changed.clamp(-1, 1)), labels


def diagonal(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y], dim=1))


def rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
