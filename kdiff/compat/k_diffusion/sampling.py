"""`k_diffusion.sampling`: its functions, with its signatures, on kdiff's samplers and schedules.

`model(x, sigma, **extra_args)` gets `sigma` as a tensor `[N]` and returns the denoised. `callback`
gets `{'x', 'i', 'sigma', 'sigma_hat', 'denoised'}` once a step. Noise that k-diffusion draws from
torch's global generator is drawn from it here too, at the same moments: the same seed, the same
pictures. ValueError on options or sigmas that kdiff's samplers do not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kdiff.compat.k_diffusion.brownian import BatchedBrownianTree, BrownianTreeNoiseSampler
from kdiff.compat.k_diffusion.utils import append_dims
from kdiff.samplers import REGISTRY
from kdiff.samplers.loops import ancestral_split
from kdiff.samplers.vp import vp_sigma
from kdiff.schedules import schedule

__all__ = [
    "BatchedBrownianTree",
    "BrownianTreeNoiseSampler",
    "append_zero",
    "default_noise_sampler",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
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
]

Model = Callable[..., Tensor]
Extra = Mapping[str, Any] | None
Callback = Callable[[dict[str, Any]], Any] | None
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def append_zero(x: Tensor) -> Tensor:
    """A list of sigmas, and 0 after the last."""
    return torch.cat([x, x.new_zeros(1)])


def get_sigmas_karras(n, sigma_min, sigma_max, rho=7.0, device="cpu") -> Tensor:
    """`n` sigmas of Karras et al. 2022, eq. 5, and 0, in torch's default dtype."""
    return _sigmas("karras", n, sigma_min, sigma_max, device, rho=rho)


def get_sigmas_exponential(n, sigma_min, sigma_max, device="cpu") -> Tensor:
    """`n` sigmas, even in log sigma, and 0."""
    return _sigmas("exponential", n, sigma_min, sigma_max, device)


def get_sigmas_polyexponential(n, sigma_min, sigma_max, rho=1.0, device="cpu") -> Tensor:
    """`n` sigmas, log sigma a power `rho` of a ramp, and 0."""
    return _sigmas("polyexponential", n, sigma_min, sigma_max, device, rho=rho)


def get_sigmas_vp(n, beta_d=19.9, beta_min=0.1, eps_s=1e-3, device="cpu") -> Tensor:
    """`n` sigmas, even in the time of the VP SDE from 1 to `eps_s`, and 0."""
    low, high = vp_sigma(eps_s, beta_d, beta_min), vp_sigma(1.0, beta_d, beta_min)
    return _sigmas("vp", n, low, high, device, beta_d=beta_d, beta_min=beta_min)


def _sigmas(name: str, n: int, low: Any, high: Any, device: Any, **settings: Any) -> Tensor:
    grid = schedule(name, n, sigma_min=float(low), sigma_max=float(high), **settings)
    return torch.tensor(grid, dtype=torch.get_default_dtype(), device=device)


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability-flow ODE, (x - denoised) / sigma."""
    return (x - denoised) / append_dims(sigma, x.ndim)


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """(sigma_down, sigma_up): step down to the first, then add noise of the second, to be at
    `sigma_to`. Tensors if `sigma_to` is one."""
    if not eta:
        return sigma_to, 0.0
    down, up = ancestral_split(float(sigma_from), float(sigma_to), eta)
    up = min(up, float(sigma_to))
    like = sigma_to.new_tensor if isinstance(sigma_to, Tensor) else float
    return like(down), like(up)


def default_noise_sampler(x: Tensor) -> NoiseSampler:
    """Standard normal noise like `x` from torch's global generator, whatever the interval."""
    return lambda sigma, sigma_next: torch.randn_like(x)


def _grid(sigmas: Tensor) -> list[float]:
    grid = [float(s) for s in sigmas]
    if not all(0 < s < math.inf and s != t for s, t in pairwise(grid)) or not min(grid) >= 0:
        raise ValueError(
            "sigmas must be above 0, the last one at least 0, with no two running equal"
        )
    return grid


def _sample(
    name: str,
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra,
    callback: Callback,
    disable: bool | None,
    options: Mapping[str, Any],
    noise: NoiseSampler | None = None,
    before_step: Callable[[], Any] = lambda: None,
) -> Tensor:
    """Drive kdiff's sampler of that name."""
    sampler, grid, tensor = REGISTRY[name], _grid(sigmas), sigmas.new_tensor
    if len(grid) < 2:
        return x
    calls = sampler.calls_per_step(len(grid) - 1, "sigma_min" if grid[-1] else "zero")
    asks = sampler.start(x, grid, noise and (lambda s, t: noise(tensor(s), tensor(t))), options)
    denoised = None
    for i, n in enumerate(tqdm(calls, disable=disable)):
        before_step()
        for call in range(n):
            x, sigma = asks.send(denoised)
            denoised = model(x, x.new_full([len(x)], sigma), **(extra_args or {}))
            if callback is not None and call == 0:
                now = {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": tensor(sigma)}
                callback({**now, "denoised": denoised})
    try:
        asks.send(denoised)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError(f"{name} asks more often than it declares")


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
        self.x = x

    def draw(self) -> None:
        self.noise = torch.randn_like(self.x)

    def __call__(self, sigma: Tensor, sigma_hat: Tensor) -> Tensor:
        return self.noise


def _churned(name: str) -> Callable[..., Tensor]:
    @_published(name)
    def sample(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Extra = None,
        callback: Callback = None,
        disable: bool | None = None,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
    ) -> Tensor:
        options = {"S_churn": s_churn, "S_tmin": s_tmin, "S_tmax": s_tmax, "S_noise": s_noise}
        noise, run = _DrawnEachStep(x), (model, x, sigmas, extra_args, callback, disable)
        return _sample(name, *run, options, noise, noise.draw)

    return sample


def _ancestral(name: str) -> Callable[..., Tensor]:
    @_published(name)
    def sample(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Extra = None,
        callback: Callback = None,
        disable: bool | None = None,
        eta: float = 1.0,
        s_noise: float = 1.0,
        noise_sampler: NoiseSampler | None = None,
    ) -> Tensor:
        noise = noise_sampler or default_noise_sampler(x)
        options, run = {"eta": eta, "s_noise": s_noise}, (model, x, sigmas)
        return _sample(name, *run, extra_args, callback, disable, options, noise)

    return sample


sample_euler = _churned("euler")
sample_heun = _churned("heun")
sample_dpm_2 = _churned("dpm_2")
sample_euler_ancestral = _ancestral("euler_ancestral")
sample_dpm_2_ancestral = _ancestral("dpm_2_ancestral")
sample_dpmpp_2s_ancestral = _ancestral("dpmpp_2s_ancestral")


@_published("lms")
def sample_lms(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra = None,
    callback: Callback = None,
    disable: bool | None = None,
    order: int = 4,
) -> Tensor:
    options = {"order": order}
    return _sample("lms", model, x, sigmas, extra_args, callback, disable, options)


@_published("dpmpp_2m")
def sample_dpmpp_2m(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra = None,
    callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:
    return _sample("dpmpp_2m", model, x, sigmas, extra_args, callback, disable, {})


@_published("dpmpp_sde")
def sample_dpmpp_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra = None,
    callback: Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 1 / 2,
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    options, run = {"eta": eta, "s_noise": s_noise, "r": r}, (model, x, sigmas)
    return _sample("dpmpp_sde", *run, extra_args, callback, disable, options, noise)


@_published("dpmpp_2m_sde")
def sample_dpmpp_2m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra = None,
    callback: Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "midpoint",
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    options = {"eta": eta, "s_noise": s_noise, "solver_type": solver_type}
    run = (model, x, sigmas, extra_args, callback, disable)
    return _sample("dpmpp_2m_sde", *run, options, noise)


@_published("dpmpp_3m_sde")
def sample_dpmpp_3m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Extra = None,
    callback: Callback = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    noise = noise_sampler or _brownian(x, sigmas)
    # as k-diffusion has it: of order 2 only
    options = {"eta": eta, "s_noise": s_noise, "as_published": True}
    run = (model, x, sigmas, extra_args, callback, disable)
    return _sample("dpmpp_3m_sde", *run, options, noise)


def _brownian(x: Tensor, sigmas: Tensor) -> NoiseSampler:
    return BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max())


def sample_dpm_fast(
    model,
    x,
    sigma_min,
    sigma_max,
    n,
    extra_args=None,
    callback=None,
    disable=None,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
) -> Tensor:
    """Not in kdiff: NotImplementedError."""
    raise NotImplementedError("kdiff has no dpm_fast; use sample_dpmpp_2m")


def sample_dpm_adaptive(
    model,
    x,
    sigma_min,
    sigma_max,
    extra_args=None,
    callback=None,
    disable=None,
    order=3,
    rtol=0.05,
    atol=0.0078,
    h_init=0.05,
    pcoeff=0.0,
    icoeff=1.0,
    dcoeff=0.0,
    accept_safety=0.81,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
    return_info=False,
) -> Tensor:
    """Not in kdiff: NotImplementedError."""
    raise NotImplementedError("kdiff has no dpm_adaptive; take sample_dpmpp_2m or sample_heun")


def log_likelihood(
    model, x, sigma_min, sigma_max, extra_args=None, atol=1e-4, rtol=1e-4
) -> tuple[Tensor, dict]:
    """Not in kdiff: NotImplementedError."""
    raise NotImplementedError("kdiff has no log_likelihood")
