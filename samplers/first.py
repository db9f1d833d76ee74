"""The first answer without the network.

Where noise drowns the data, at the sigma of 80 that runs begin with, D is nearly linear in x: it is
what one Gaussian's mean and spread say. So the first evaluation can be spent elsewhere. Dockhorn et
al. 2022 (GENIE, "analytical first step") take N(0, I); here it is N(mean, std^2 I).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kdiff.samplers.contract import Coroutine, Walk
from kdiff.samplers.registry import Sampler
from kdiff.samplers.tableau import MEAN, Linear


@dataclass(frozen=True)
class Gaussian:
    """What is known of data before any network is asked: their `mean`, a number or nested lists
    that are spread over one sample, and their root mean square distance from it."""

    mean: Any
    std: float

    def denoised(self, x: Any, s: float) -> Any:
        """E[x0 | x] = mean + k (x - mean), k = std^2 / (std^2 + s^2)."""
        k = self.std**2 / (self.std**2 + s**2)
        return k * x + (1 - k) * mean_like(x, self.mean)


def mean_like(x: Any, mean: Any) -> Any:
    """The mean in the form of `x`: a tensor, the symbol `mean`, or, of the plain zeros that stand
    for x where asks are only counted, 0."""
    if isinstance(x, Linear):
        return Linear({MEAN: 1.0})
    return x.new_tensor(mean) if hasattr(x, "new_tensor") else 0.0


def analytic_first(sampler: Sampler, data: Gaussian, sigma: float) -> Sampler:
    """The sampler whose first ask, in runs that begin at noise level `sigma`, is answered by the
    Gaussian: it asks for one evaluation less."""
    return replace(
        sampler,
        function=_answered(sampler.function, data, sigma),
        first_calls=sampler.first_calls - 1,
        count=None if sampler.count is None else partial(_one_less, sampler.count),
    )


def _one_less(count: Callable[..., int], *arguments: Any) -> int:
    return count(*arguments) - 1


def _answered(
    function: Callable[..., Coroutine], data: Gaussian, sigma: float
) -> Callable[..., Coroutine]:
    def start(x: Any, sigmas: Sequence[float], **keywords: Any) -> Coroutine:
        coroutine = function(x, sigmas, **keywords)
        return _without_first(coroutine, data) if sigmas[0] == sigma else coroutine

    return start


def _without_first(coroutine: Coroutine, data: Gaussian) -> Coroutine:
    walk = Walk(coroutine, graph=True)  # who answers says what can be differentiated
    first, *asks = walk.asks
    walk.answer(data.denoised(first.x, first.sigma))
    while asks or walk.asks:
        walk.answer(*(yield asks or list(walk.asks)))
        asks = []
    return walk.result
