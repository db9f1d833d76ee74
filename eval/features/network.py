"""A feature network, and what it makes of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch


class Features(NamedTuple):
    """What metrics look at, float32: `pool` `[N, D]`; `logits` `[N, K]` and `spatial` `[N, S]` of
    networks that have them."""

    pool: np.ndarray
    logits: np.ndarray | None = None
    spatial: np.ndarray | None = None


@dataclass(frozen=True)
class FeatureNetwork:
    """`network(images)`: uint8 `[N, H, W, 3]` -> `Features`.

    `resize` is the mode of FID's Inception, None where there is no choice. `weights` is the
    SHA-256 of what determines the features: figures are comparable if all three are equal.
    """

    name: str
    resize: str | None
    weights: str
    extract: Callable[[np.ndarray], Features]

    def __call__(self, images: np.ndarray) -> Features:
        """ValueError unless uint8 `[N, H, W, 3]`."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}"
            )
        return self.extract(images)

    def label(self, metric: str) -> str:
        """`FID` and `IS` alone mean Inception; the name of any other network stands with its
        figures."""
        if self.name == "inception":
            return metric
        return f"{metric.replace('FID', 'FD')} ({self.name})"

    def record(self) -> dict[str, Any]:
        """For results to carry."""
        return {"name": self.name, "resize": self.resize, "weights": self.weights}


def in_full_precision(
    extract: Callable[[np.ndarray], Features],
) -> Callable[[np.ndarray], Features]:
    """A decorator: without gradients, and on CUDA without TF32. TF32, PyTorch's default for
    convolutions, has ten bits of mantissa; its features would differ from a CPU's."""

    @wraps(extract)
    def run(images: np.ndarray) -> Features:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return extract(images)

    return run


def equal_parts(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """In parts of one size, the last one padded: a network's rounding depends on the shape of its
    batch, but an image's features must not depend on its neighbours."""
    for i in range(0, len(images), size):
        part = images[i : i + size]
        yield np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)])
