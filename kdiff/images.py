"""Tensors to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdiff.counts import whole_number
from kdiff.files import user_path


def to_uint8(images: Tensor) -> np.ndarray:
    """`[N, C, H, W]` in [-1, 1] -> uint8 `[N, H, W, C]`: 127.5 x + 127.5, rounded, clamped."""
    scaled = (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def save_image(image: np.ndarray, path: str | Path) -> None:
    """Write uint8 `[H, W, 1 or 3]` to a file; its suffix says the format."""
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(user_path(path))


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """uint8 `[N, H, W, C]` in rows of `columns` (default: as square as possible), on white."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else whole_number("columns", columns, 1)
    gap = whole_number("gap", gap, 0)
    rows = math.ceil(n / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def save_animation(frames: Sequence[np.ndarray], path: str | Path, milliseconds: int = 120) -> None:
    """Write uint8 `[H, W, C]` frames as an endless GIF that rests on its last frame."""
    pictures = [Image.fromarray(f.squeeze(-1) if f.shape[-1] == 1 else f) for f in frames]
    rests = [milliseconds] * (len(pictures) - 1) + [10 * milliseconds]
    pictures[0].save(
        user_path(path), save_all=True, append_images=pictures[1:], duration=rests, loop=0
    )
