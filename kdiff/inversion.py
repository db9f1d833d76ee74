"""`kdiff.invert`: from samples up to the noise that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

from torch import Tensor

from kdiff.noise import Noise
from kdiff.plans import DEFAULT_SAMPLER
from kdiff.plans import plan as make_plan
from kdiff.sampling import sample


def invert(
    model: Any,
    x: Tensor,
    sampler: str = DEFAULT_SAMPLER,
    *,
    seeds: Sequence[int] | None = None,
    **settings: Any,
) -> Tensor:
    """The latents at sigma_max from which the probability-flow ODE leads to `x`: its flow
    dx/dsigma = (x - D(x; sigma)) / sigma, solved from sigma_min upward by any sampler, at the
    settings at which it draws no noise. `ddim` is DDIM inversion (Song et al. 2021, section 4.3;
    Dhariwal & Nichol 2021, appendix F). `kdiff.sample(model, start=latents, ..)` leads back, up to
    the error of both solutions.

    `x` `[n, *shape]` is taken to be at noise level sigma_min. Clean data are not quite: give
    `seeds`, one a row, to add their noise of that level. `settings` are those of `kdiff.sample`
    (`steps`, `nfe`, `sigmas`, `schedule`, `cond`, `guide`, `batch`, `dtype`, ..); `sigmas` are
    decreasing and end above 0, and the run goes through them from their end.
    ValueError on bad arguments, and for a sampler that always draws noise.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim:
        raise ValueError("x must be a tensor of a floating-point dtype, a row for each sample")
    if seeds is not None:
        x = _noised(model, x, sampler, seeds, settings)
    return sample(model, sampler, start=x, upward=True, **settings)


def _noised(
    model: Any, x: Tensor, sampler: str, seeds: Sequence[int], settings: Mapping[str, Any]
) -> Tensor:
    """`x` with noise of the level where the run starts. ValueError unless a seed for each row."""
    if not isinstance(seeds, Iterable) or len(seeds := list(seeds)) != len(x):
        raise ValueError(f"give a seed for each of the {len(x)} rows of x, not {seeds!r:.80}")
    own = signature(sample).parameters
    planned = {key: value for key, value in settings.items() if key not in own}
    sigma = make_plan(model, sampler, upward=True, **planned).sigmas[0]
    return x + sigma * Noise(seeds, x.shape[1:], x.dtype, x.device).initial()
