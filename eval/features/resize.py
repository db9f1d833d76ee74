"""The three resize modes of FID, each as one matrix per axis.

Figures from different modes cannot be compared (Parmar et al. 2022, "On Aliased Resizing and
Surprising Subtleties in GAN Evaluation").
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

SIZE = 299  # what Inception-v3 takes

MODES = {
    "legacy_tensorflow": "TensorFlow 1's bilinear, as in TTUR and EDM; (x - 128) / 128",
    "legacy_pytorch": "bilinear as in pytorch-fid, half-pixel centres; 2 x / 255 - 1",
    "clean": "Pillow's bicubic with antialiasing, as in clean-fid; (x - 128) / 128",
}


def resize(images: Tensor, mode: str) -> Tensor:
    """uint8 `[N, H, W, 3]` -> float32 `[N, 3, 299, 299]` in channels_last, about in [-1, 1].

    `A_h X A_w^T` for each channel, in float32, never rounded to whole grey levels. KeyError if the
    mode is unknown.
    """
    to_height, to_width = (_matrix(n, mode).to(images.device) for n in images.shape[1:3])
    resized = to_height @ images.permute(0, 3, 1, 2).float() @ to_width.T
    resized = resized.contiguous(memory_format=torch.channels_last)
    if mode == "legacy_pytorch":
        return resized.div_(127.5).sub_(1)
    if mode == "clean":
        resized.clamp_(0, 255)  # bicubic overshoots
    return resized.sub_(128).div_(128)


@cache
def _matrix(n: int, mode: str) -> Tensor:
    return torch.from_numpy(MATRICES[mode](n).astype(np.float32))


def _tensorflow_bilinear(n: int, size: int = SIZE) -> np.ndarray:
    """`[size, n]`: pixel i is read at i n / size, without the shift by half a pixel that puts
    pixel centres on pixel centres; the edge is repeated."""
    return _bilinear(np.arange(size) * (n / size), n)


def _half_pixel_bilinear(n: int, size: int = SIZE) -> np.ndarray:
    """`[size, n]`: pixel i is read at (i + 1/2) n / size - 1/2; the edge is repeated."""
    return _bilinear((np.arange(size) + 0.5) * (n / size) - 0.5, n)


def _pillow_bicubic(n: int, size: int = SIZE) -> np.ndarray:
    """`[size, n]`: Keys' cubic with a = -1/2, stretched by n / size where the image shrinks, cut at
    the edges, and normalised."""
    scale = max(n / size, 1.0)
    centres = (np.arange(size)[:, None] + 0.5) * (n / size)
    pixels = np.arange(n)[None] + 0.5
    # Pillow takes whole pixels only: those from round(centre - support) to round(centre + support).
    first, last = np.floor(centres - 2 * scale + 0.5), np.floor(centres + 2 * scale + 0.5)
    inside = (pixels > first) & (pixels < last)
    weights = np.where(inside, _keys((pixels - centres) / scale), 0)
    return weights / weights.sum(1, keepdims=True)


def _bilinear(source: np.ndarray, n: int) -> np.ndarray:
    source = source.clip(0, n - 1)
    return np.maximum(0, 1 - abs(source[:, None] - np.arange(n)[None]))


def _keys(x: np.ndarray) -> np.ndarray:
    x = abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


MATRICES = {
    "legacy_tensorflow": _tensorflow_bilinear,
    "legacy_pytorch": _half_pixel_bilinear,
    "clean": _pillow_bicubic,
}
