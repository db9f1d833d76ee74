"""k-diffusion's noise schedules, with its signatures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdiff.samplers.vp import vp_sigma
from kdiff.schedules import schedule


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
