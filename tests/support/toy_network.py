"""A feature network of a few lines, as a plug-in: `toy_network:scored`."""

import numpy as np

DIM, CLASSES = 12, 5


def _projected(images: np.ndarray, dim: int, seed: int) -> np.ndarray:
    n, height, width, _ = images.shape
    blocks = images.reshape(n, 4, height // 4, 4, width // 4, 3).mean((2, 4)).reshape(n, -1)
    return blocks / 64 @ np.random.default_rng(seed).standard_normal((48, dim)) / 7


def features(images: np.ndarray) -> np.ndarray:
    """uint8 `[N, H, W, 3]`, sides divisible by four, to `[N, 12]`."""
    return _projected(images, DIM, 0)


def scored(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With logits `[N, 5]`."""
    return features(images), _projected(images, CLASSES, 1)
