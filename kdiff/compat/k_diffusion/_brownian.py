"""Brownian paths with the signatures of k-diffusion's, which are torchsde's trees.

They have the same law, but other numbers: `kdiff.Noise` makes them from the seed, equal on every
device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdiff.noise import Noise

_OCTAVES = 20


class BatchedBrownianTree:
    """`tree(a, b)` is W(b) - W(a), for one path W between the times `t0` and `t1`, as a tensor like
    `x`; with a list of seeds, one path for each sample of the batch.

    Without `seed`, torch's global generator chooses it. Times beyond both ends count as the ends.
    Further keywords are torchsde's and change nothing here.
    """

    def __init__(self, x: Tensor, t0: Any, t1: Any, seed: Any = None, **kwargs: Any):
        self.t0, self.t1, self.sign = self.sort(float(t0), float(t1))
        if seed is None:
            seed = int(torch.randint(0, 2**63 - 1, []))
        self.batched = np.ndim(seed) > 0
        if self.batched and len(seed) != len(x):
            raise ValueError(f"{len(seed)} seeds for a batch of {len(x)}")
        seeds, shape = (list(seed), x.shape[1:]) if self.batched else ([seed], x.shape)
        self.noise = Noise(seeds, shape, x.dtype, x.device)

    @staticmethod
    def sort(a: Any, b: Any) -> tuple[Any, Any, int]:
        """The smaller, the larger, and -1 if they changed places."""
        return (a, b, 1) if a < b else (b, a, -1)

    def __call__(self, t0: Any, t1: Any) -> Tensor:
        low, high, sign = self.sort(self._position(t0), self._position(t1))
        w = 0.0 * self.noise.initial()
        for start, end, length in _pieces(low, high):
            w = w + math.sqrt(length) * self.noise.brownian(2.0**-start, 2.0**-end)
        w = self.sign * sign * math.sqrt(self.t1 - self.t0) * w
        return w if self.batched else w[0]

    def _position(self, t: Any) -> float:
        return min(max((float(t) - self.t0) / (self.t1 - self.t0), 0.0), 1.0)


def _pieces(low: float, high: float) -> Iterator[tuple[float, float, float]]:
    """The interval [low, high] of [0, 1], cut at 2^-1, 2^-2 .. 2^-_OCTAVES, each piece as an
    interval of `kdiff.Noise`'s clock (one unit from cut to cut) and its length here.

    So the path is resolved to 1 / 4096 of the distance from its small end, as noise schedules
    need: steps grow with sigma.
    """
    cuts = [0.0, *(2.0 ** (k - _OCTAVES) for k in range(_OCTAVES + 1))]
    for clock, (a, b) in enumerate(pairwise(cuts)):
        start, end = max(low, a), min(high, b)
        if start < end:
            yield clock + (start - a) / (b - a), clock + (end - a) / (b - a), end - start


class BrownianTreeNoiseSampler:
    """`sampler(sigma, sigma_next)` is standard normal noise like `x`: the increment of a Brownian
    path over that interval, divided by its standard deviation.

    The path lies between `sigma_min` and `sigma_max`; `seed` is as in `BatchedBrownianTree`;
    `transform` gives the path's time at a sigma.
    """

    def __init__(
        self,
        x: Tensor,
        sigma_min: Any,
        sigma_max: Any,
        seed: Any = None,
        transform: Callable[[Tensor], Tensor] = lambda x: x,
    ):
        self.transform = transform
        t0, t1 = self._times(sigma_min, sigma_max)
        self.tree = BatchedBrownianTree(x, t0, t1, seed)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        t0, t1 = self._times(sigma, sigma_next)
        return self.tree(t0, t1) / math.sqrt(abs(t1 - t0))

    def _times(self, *sigmas: Any) -> list[float]:
        return [float(self.transform(torch.as_tensor(sigma))) for sigma in sigmas]
