"""Exact denoisers: for tests, and to see what a sampler does by itself.

Each is E[x0 | x] for a distribution of x0 with x = x0 + sigma n, and works on any real dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class GaussianMixture:
    """D for sum_k w_k N(mean_k, std_k^2 I). `means` `[K, *shape]`, `stds` and `weights` `[K]`.

    D(x; sigma) = sum_k r_k(x) (mean_k + v_k (x - mean_k)), v_k = std_k^2 / (std_k^2 + sigma^2),
    r_k the posterior weight of component k at x under std_k^2 + sigma^2. Std 0 is allowed.
    """

    device = torch.device("cpu")
    sigmas = None

    def __init__(
        self,
        means: Tensor,
        stds: Tensor,
        weights: Tensor | None = None,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ):
        self.means, self.stds = means, stds
        self.weights = torch.full_like(stds, 1 / len(stds)) if weights is None else weights
        self.shape = tuple(means.shape[1:])
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def __call__(self, x: Tensor, sigma: float, **cond: object) -> Tensor:
        """`x` `[N, *shape]` at noise level `sigma` > 0 -> D, the same shape and dtype."""
        means = self.means.to(x).reshape(len(self.means), -1)  # [K, d]
        variances = self.stds.to(x) ** 2
        total = variances + sigma**2
        flat = x.reshape(len(x), -1)
        squares = (flat[:, None] - means).square().sum(-1)  # [N, K]
        d = flat.shape[1]
        logits = self.weights.to(x).log() - squares / (2 * total) - d / 2 * total.log()
        r = logits.softmax(-1)
        shrink = variances / total
        denoised = (r * shrink).sum(-1, keepdim=True) * flat + (r * (1 - shrink)) @ means
        return denoised.view_as(x)


def gaussian(mean: Tensor, std: float = 0.5) -> GaussianMixture:
    """D for N(mean, std^2 I); its ODE's solution is `gaussian_solution`."""
    return GaussianMixture(mean[None], torch.tensor([std], dtype=mean.dtype))


def gaussian_solution(mean: Tensor, std: float, x: Tensor, s: float, t: float) -> Tensor:
    """Where the probability-flow ODE of N(mean, std^2 I) takes x from noise level s to t:
    mean + (x - mean) sqrt((std^2 + t^2) / (std^2 + s^2))."""
    return mean + (x - mean) * (math.hypot(std, t) / math.hypot(std, s))


def data_set(points: Tensor | Sequence[Tensor]) -> GaussianMixture:
    """The ideal denoiser of a finite data set `[K, *shape]`: the softmax-weighted mean of its
    points (Karras et al. 2022, eq. 57). It memorises: samplers end on the points themselves."""
    means = points if isinstance(points, Tensor) else torch.stack(list(points))
    return GaussianMixture(means, torch.zeros(len(means), dtype=means.dtype))
