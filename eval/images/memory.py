"""Images in memory: uint8 arrays, and the float samples that `kdiff.sample` returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from kdiff.eval.images.source import GREYSCALE, Pictures, Read, check_count
from kdiff.images import to_uint8

# Samples overshoot: a good model's, at five evaluations, reach 1.66, and 0.2% are beyond OVERSHOOT.
# A tenth of data with mean 0 and variance 1 is beyond it.
OVERSHOOT, MOST_BEYOND, FARTHEST = 1.5, 0.01, 2.0


def from_memory(images: np.ndarray | Tensor) -> Pictures:
    """uint8 `[N, H, W, 3]`, or floats `[N, 3 or 1, H, W]` in [-1, 1], as `kdiff.sample` returns
    them: 127.5 x + 127.5, rounded and clamped.

    ValueError, with the conversion to use, for other layouts and ranges: floats with no value below
    0, which look like [0, 1], and floats farther outside of [-1, 1] than samples overshoot.
    """
    if isinstance(images, Tensor):
        _check_tensor(images)
        if images.is_floating_point():
            images = images.float() if images.dtype.itemsize == 1 else images  # 8 bits: no minimum
            return _from_floats(images.detach())
        images = images.cpu().numpy()
    if images.dtype.kind == "f":
        return _from_floats(torch.from_numpy(np.ascontiguousarray(images, np.float32)))
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] != 3:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], not {list(images.shape)}: {_to_rgb(images.shape)}"
        )
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], not {images.dtype} {images.shape}, or floats "
            "[N, C, H, W] in [-1, 1]"
        )
    check_count("the array", len(images))
    array = images

    @contextmanager
    def reading() -> Iterator[Read]:
        yield lambda numbers: array[np.asarray(numbers)]

    return Pictures("array", len(array), array.shape[1:3], (), reading)


def _check_tensor(images: Tensor) -> None:
    if images.layout != torch.strided or images.is_meta or images.is_quantized:
        kind = "meta" if images.is_meta else "quantized" if images.is_quantized else "sparse"
        raise ValueError(f"images must be a dense tensor that holds its values, not a {kind} one")


def _to_rgb(shape: tuple[int, ...]) -> str:
    if shape[1] in (1, 3):
        return "give np.transpose(x, (0, 2, 3, 1)), or x.permute(0, 2, 3, 1) of a tensor"
    if shape[3] == 1:
        return "give np.repeat(x, 3, axis=3)"
    return "give RGB"


def _from_floats(samples: Tensor) -> Pictures:
    _check_layout(tuple(samples.shape))
    _check_range(samples)
    n, channels, height, width = samples.shape

    @contextmanager
    def reading() -> Iterator[Read]:
        def read(numbers) -> np.ndarray:
            chosen = samples[torch.as_tensor(numbers, dtype=torch.long, device=samples.device)]
            return to_uint8(chosen).repeat(3 // channels, axis=3)

        yield read

    notes = (GREYSCALE,) if channels == 1 else ()
    return Pictures("samples", n, (height, width), notes, reading)


def _check_layout(shape: tuple[int, ...]) -> None:
    wanted = f"floats must be [N, C, H, W] with 3 or 1 channels, not {list(shape)}"
    if len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        raise ValueError(
            f"{wanted}: give x.permute(0, 3, 1, 2), of an array x.transpose(0, 3, 1, 2)"
        )
    if len(shape) == 4 and shape[1] not in (1, 3):
        raise ValueError(f"{wanted}: if they are latents, give model.decode(x)")
    if len(shape) != 4 or min(shape[1:]) < 1:
        raise ValueError(wanted)
    check_count("the tensor", shape[0])


def _check_range(samples: Tensor) -> None:
    least, most = float(samples.amin()), float(samples.amax())
    found = f"floats must be in [-1, 1]; these are from {least:.3g} to {most:.3g}"
    if not np.isfinite([least, most]).all():
        raise ValueError(f"{found}, not finite")
    if least >= 0:
        if most <= 1:
            raise ValueError(f"{found}, as if in [0, 1]: give 2 * x - 1")
        if most <= 255:
            raise ValueError(f"{found}, as if in [0, 255]: give x / 127.5 - 1")
    beyond = (samples.abs() > OVERSHOOT).float().mean().item()
    if max(-least, most) > FARTHEST or beyond > MOST_BEYOND:
        raise ValueError(
            f"{found}, {beyond:.1%} beyond {OVERSHOOT}: bring them to [-1, 1], or give "
            "kdiff.images.to_uint8(x), which cuts the rest off"
        )
