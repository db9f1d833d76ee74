"""`k_diffusion.evaluation`: features of samples and distances between them, on kdiff.eval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from kdiff.compat.k_diffusion._missing import says_what_is_missing
from kdiff.counts import whole_number
from kdiff.eval import Gaussian, Moments, frechet_distance
from kdiff.eval.features.inception_weights import load_inception

__all__ = [
    "InceptionV3FeatureExtractor",
    "compute_features",
    "fid",
    "kid",
    "polynomial_kernel",
    "sqrtm_eig",
    "squared_mmd",
]

__getattr__ = says_what_is_missing("evaluation")


class InceptionV3FeatureExtractor(nn.Module):
    """FID's Inception on images `[N, 1 or 3, H, W]` from -1 to 1, resized as k-diffusion does:
    features `[N, 2048]`. ValueError if its weights are not there."""

    size = (299, 299)

    def __init__(self, device: Any = "cpu"):
        super().__init__()
        network, _ = load_inception()
        self.model = network.to(device)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, self.size, mode="bicubic", align_corners=False, antialias=True)
        pixels = (x * 127.5 + 127.5).clamp(0, 255).expand(-1, 3, -1, -1)
        pool, _ = self.model((pixels - 128) / 128)
        return pool


def compute_features(
    accelerator: Any,
    sample_fn: Callable[[int], Tensor],
    extractor_fn: Callable[[Tensor], Tensor],
    n: int,
    batch_size: int,
) -> Tensor:
    """The features `[n, ..]` of n samples, in batches. `accelerator` is Hugging Face's, whose
    processes share them. A `sample_fn` that has no more raises StopIteration."""
    n, batch_size = whole_number("n", n, 1), whole_number("batch_size", batch_size, 1)
    each = math.ceil(n / accelerator.num_processes)
    features = []
    try:
        for i in trange(0, each, batch_size, disable=not accelerator.is_main_process):
            size = min(n - i, batch_size)
            features.append(accelerator.gather(extractor_fn(sample_fn(size)[:size])))
    except StopIteration:
        pass
    if not features:
        raise ValueError("there are no samples to take features of")
    return torch.cat(features)[:n]


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / dim + 1)^3 for all rows of both."""
    return (x @ y.mT / x.shape[-1] + 1) ** 3


def squared_mmd(
    x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor] = polynomial_kernel
) -> Tensor:
    """The unbiased estimate of the squared MMD of the rows of x and y (Gretton et al. 2012, eq. 3).
    ValueError unless both have at least two."""
    if min(x.shape[-2], y.shape[-2]) < 2:
        raise ValueError("a kernel distance needs at least two rows on either side")

    def within(z: Tensor) -> Tensor:
        k, n = kernel(z, z), z.shape[-2]
        return (k.sum((-1, -2)) - k.diagonal(dim1=-1, dim2=-2).sum(-1)) / (n * (n - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean((-1, -2))


def kid(x: Tensor, y: Tensor, max_size: int = 5000) -> Tensor:
    """The Kernel Inception Distance of features: the mean squared MMD of equal parts of both of at
    most `max_size` rows."""
    n = max(1, math.ceil(max(len(x), len(y)) / max_size))

    def part(z: Tensor, i: int) -> Tensor:
        return z[round(i * len(z) / n) : round((i + 1) * len(z) / n)]

    return torch.stack([squared_mmd(part(x, i), part(y, i)) for i in range(n)]).mean()


def sqrtm_eig(a: Tensor) -> Tensor:
    """The square root of symmetric matrices. ValueError unless they are square."""
    if a.ndim < 2 or a.shape[-2] != a.shape[-1]:
        raise ValueError(f"a square matrix has a square root, not {list(a.shape)}")
    values, vectors = torch.linalg.eigh(a)
    return vectors @ values.abs().sqrt().diag_embed() @ vectors.mT


def fid(x: Tensor, y: Tensor, eps: float = 1e-8) -> Tensor:
    """The Frechet distance of features `[N, dim]`, by `kdiff.eval` in float64, without gradients.
    `eps` has no effect: it is there for programs that give it."""
    return x.new_tensor(frechet_distance(_gaussian(y), _gaussian(x)))


def _gaussian(x: Tensor) -> Gaussian:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features must be [N, dim] with N of at least 2, not {list(x.shape)}")
    moments = Moments(x.shape[1])
    moments.update(x.detach().double().cpu().numpy())
    return Gaussian(moments.mean, moments.cov, moments.n)
