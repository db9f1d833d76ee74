"""`k_diffusion.sampling`: its functions, with its signatures, on kdiff's samplers and schedules.

`model(x, sigma, **extra_args)` gets `sigma` as a tensor `[N]` and returns the denoised. `callback`
gets `{'x', 'i', 'sigma', 'sigma_hat', 'denoised'}` once a step. Noise that k-diffusion draws from
torch's global generator is drawn from it here too, at the same moments: the same seed, the same
pictures. ValueError on options or sigmas that kdiff's samplers do not have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm, trange

from kdiff.compat.k_diffusion._brownian import BatchedBrownianTree, BrownianTreeNoiseSampler
from kdiff.compat.k_diffusion._dpm_solver import DPMSolver, sample_dpm_adaptive, sample_dpm_fast
from kdiff.compat.k_diffusion._likelihood import log_likelihood
from kdiff.compat.k_diffusion._schedules import (
    append_zero,
    get_sigmas_exponential,
    get_sigmas_karras,
    get_sigmas_polyexponential,
    get_sigmas_vp,
)
from kdiff.compat.k_diffusion._steps import (
    float_grid,
    get_ancestral_step,
    linear_multistep_coeff,
    to_d,
)
from kdiff.samplers import REGISTRY, Walk
from kdiff.samplers.outline import outline
from kdiff.samplers.step_size import PIDStepSizeController

__all__ = [
    "BatchedBrownianTree",
    "BrownianTreeNoiseSampler",
    "DPMSolver",
    "PIDStepSizeController",
    "append_zero",
    "default_noise_sampler",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "linear_multistep_coeff",
    "log_likelihood",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lms",
    "to_d",
    "tqdm",
    "trange",
]

_Model = Callable[..., Tensor]
_Extra = Mapping[str, Any] | None
_Callback = Callable[[dict[str, Any]], Any] | None
_NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def default_noise_sampler(x: Tensor) -> _NoiseSampler:
    """Standard normal noise like `x` from torch's global generator, whatever the interval."""
    return lambda sigma, sigma_next: torch.randn_like(x)


def _sample(
    name: str,
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra,
    callback: _Callback,
    disable: bool | None,
    options: Mapping[str, Any],
    noise: _NoiseSampler | None = None,
    before_step: Callable[[], Any] = lambda: None,
    unused_noise: _NoiseSampler | None = None,
    slope_first: bool = False,
) -> Tensor:
    """Drive kdiff's sampler of that name. `unused_noise` is noise that k-diffusion draws and
    multiplies by 0. `slope_first`: k-diffusion takes the slope before it calls back, so what the
    callback then changes in place moves x, and the slope stays."""
    sampler, grid, tensor = REGISTRY[name], float_grid(sigmas), sigmas.new_tensor
    if len(grid) < 2:
        return x
    known = outline(sampler, grid, options)
    assert known is not None  # none of these is adaptive
    calls = Counter(known.steps)
    source: Any = noise and (lambda s, t: noise(tensor(s), tensor(t)))
    walk = Walk(sampler.start(x, grid, source, options))
    for i in trange(len(grid) - 1, disable=disable):
        before_step()
        for call in range(calls[i]):
            assert walk.ask is not None
            x, sigma = walk.ask.x, walk.ask.sigma
            denoised = model(x, x.new_full([len(x)], sigma), **(extra_args or {}))
            if call == 0:
                now = {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": tensor(sigma)}
                denoised = _called_back(callback, {**now, "denoised": denoised}, slope_first)
            walk.answer(denoised)
        if unused_noise is not None and grid[i + 1] > 0:
            unused_noise(sigmas[i], sigmas[i + 1])
    return walk.result


def _called_back(callback: _Callback, now: dict[str, Any], slope_first: bool) -> Tensor:
    """Call back, and return the denoised that the step goes on with: the callback may have changed
    `x` and `denoised` in place. With `slope_first`, `denoised` moves with x, so that the slope
    (x - denoised) / sigma stays."""
    x, denoised = now["x"], now["denoised"]
    if slope_first:
        denoised = denoised.clone()
    if callback is None:
        return denoised
    old_x = x.clone()
    callback(now)
    return torch.where(x == old_x, denoised, denoised + (x - old_x)) if slope_first else denoised


def _published(name: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Make the function below k-diffusion's `sample_<name>`, which tracks no gradients."""

    def named(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        function.__name__ = function.__qualname__ = f"sample_{name}"
        function.__doc__ = f"kdiff's `{name}`: {REGISTRY[name].function.__doc__}"
        return torch.no_grad()(function)

    return named


class _DrawnEachStep:
    """k-diffusion's churning samplers draw noise in each step, whether they use it or not."""

    def __init__(self, x: Tensor):
        self.x, self.drawn = x, False

    def __call__(self, sigma: Tensor, sigma_hat: Tensor) -> Tensor:
        self.drawn = True
        return torch.randn_like(self.x)

    def before_step(self) -> None:
        """Draw this step's noise if the sampler has not."""
        if not self.drawn:
            torch.randn_like(self.x)
        self.drawn = False


def _churned(name: str) -> Callable[..., Tensor]:
    @_published(name)
    def sample(
        model: _Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: _Extra = None,
        callback: _Callback = None,
        disable: bool | None = None,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
    ) -> Tensor:
        options = {"S_churn": s_churn, "S_tmin": s_tmin, "S_tmax": s_tmax, "S_noise": s_noise}
        noise, run = _DrawnEachStep(x), (model, x, sigmas, extra_args, callback, disable)
        return _sample(name, *run, options, noise, noise.before_step, slope_first=True)

    return sample


def _ancestral(name: str) -> Callable[..., Tensor]:
    @_published(name)
    def sample(
        model: _Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: _Extra = None,
        callback: _Callback = None,
        disable: bool | None = None,
        eta: float = 1.0,
        s_noise: float = 1.0,
        noise_sampler: _NoiseSampler | None = None,
    ) -> Tensor:
        noise = noise_sampler or default_noise_sampler(x)
        options = {"eta": eta, "s_noise": s_noise}
        run = (model, x, sigmas, extra_args, callback, disable)
        return _sample(name, *run, options, noise, unused_noise=None if eta else noise)

    return sample


sample_euler = _churned("euler")
sample_heun = _churned("heun")
sample_dpm_2 = _churned("dpm_2")
sample_euler_ancestral = _ancestral("euler_ancestral")
sample_dpm_2_ancestral = _ancestral("dpm_2_ancestral")
sample_dpmpp_2s_ancestral = _ancestral("dpmpp_2s_ancestral")


@_published("lms")
def sample_lms(
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra = None,
    callback: _Callback = None,
    disable: bool | None = None,
    order: int = 4,
) -> Tensor:
    run = (model, x, sigmas, extra_args, callback, disable)
    return _sample("lms", *run, {"order": order}, slope_first=True)


@_published("dpmpp_2m")
def sample_dpmpp_2m(
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra = None,
    callback: _Callback = None,
    disable: bool | None = None,
) -> Tensor:
    return _sample("dpmpp_2m", model, x, sigmas, extra_args, callback, disable, {})


@_published("dpmpp_sde")
def sample_dpmpp_sde(
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra = None,
    callback: _Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: _NoiseSampler | None = None,
    r: float = 1 / 2,
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    options, run = {"eta": eta, "s_noise": s_noise, "r": r}, (model, x, sigmas)
    return _sample("dpmpp_sde", *run, extra_args, callback, disable, options, noise)


@_published("dpmpp_2m_sde")
def sample_dpmpp_2m_sde(
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra = None,
    callback: _Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: _NoiseSampler | None = None,
    solver_type: str = "midpoint",
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    options = {"eta": eta, "s_noise": s_noise, "solver_type": solver_type}
    run = (model, x, sigmas, extra_args, callback, disable)
    return _sample("dpmpp_2m_sde", *run, options, noise)


@_published("dpmpp_3m_sde")
def sample_dpmpp_3m_sde(
    model: _Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: _Extra = None,
    callback: _Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: _NoiseSampler | None = None,
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    # as k-diffusion has it: of order 2 only
    options = {"eta": eta, "s_noise": s_noise, "as_published": True}
    run = (model, x, sigmas, extra_args, callback, disable)
    return _sample("dpmpp_3m_sde", *run, options, noise)


def _brownian(x: Tensor, sigmas: Tensor) -> _NoiseSampler:
    return BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max())
