"""`k_diffusion.layers`: its denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdiff.compat.k_diffusion._missing import says_what_is_missing
from kdiff.compat.k_diffusion._preconditioned import Preconditioned, v_scalings
from kdiff.compat.k_diffusion._steps import to_d
from kdiff.compat.k_diffusion.utils import append_dims
from kdiff.networks import k_diffusion_v1

__all__ = [
    "Denoiser",
    "DenoiserWithVariance",
    "FourierFeatures",
    "SimpleLossDenoiser",
]

__getattr__ = says_what_is_missing("layers")


_WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "karras": lambda sigma, data: torch.ones_like(sigma),
    "soft-min-snr": lambda sigma, data: (sigma * data / (sigma**2 + data**2)) ** 2,
    "snr": lambda sigma, data: data**2 / (sigma**2 + data**2),
}


class Denoiser(Preconditioned):
    """EDM's preconditioner (Karras et al. 2022, table 1) around a model that is told sigma itself:
    k-diffusion's networks are. `weighting` of the loss: karras, soft-min-snr, snr or a function of
    sigma. `scales` must be 1 where the loss is asked for."""

    def __init__(
        self,
        inner_model: Any,
        sigma_data: float = 1.0,
        weighting: str | Callable[[Tensor], Tensor] = "karras",
        scales: int = 1,
    ):
        super().__init__(inner_model, sigma_data)
        if not callable(weighting) and weighting not in _WEIGHTINGS:
            known = ", ".join(_WEIGHTINGS)
            raise ValueError(f"weighting must be a function or one of {known}, not {weighting!r}")
        self._weighting, self.scales = weighting, scales

    def weighting(self, sigma: Tensor) -> Tensor:
        if callable(self._weighting):
            return self._weighting(sigma)
        return _WEIGHTINGS[self._weighting](sigma, self.sigma_data)

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c_skip, c_out, c_in = v_scalings(sigma, self.sigma_data)
        return c_skip, -c_out, c_in

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return sigma

    def loss(self, input: Tensor, noise: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        """The weighted mean squared error of the network's output for each sample, `[N]`."""
        if self.scales != 1:
            raise NotImplementedError("kdiff's Denoiser has the loss for scales=1 only")
        return super().loss(input, noise, sigma, **kwargs) * self.weighting(sigma)


class DenoiserWithVariance(Denoiser):
    """For a network that also answers, to `return_variance=True`, with the logarithm `[N]` of its
    error's variance: the loss is a Gaussian's."""

    def loss(self, input: Tensor, noise: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        network_input, target = self._task(input, noise, sigma)
        output, log_variance = self.inner_model(
            network_input, sigma, return_variance=True, **kwargs
        )
        log_variance = append_dims(log_variance, input.ndim)
        error = (output - target).square()
        return ((error / log_variance.exp() + log_variance) / 2).flatten(1).mean(1)


class SimpleLossDenoiser(Denoiser):
    """Its loss is the mean squared error of the noise (Ho et al. 2020, eq. 14)."""

    def loss(self, input: Tensor, noise: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        x = input + append_dims(sigma, input.ndim) * noise
        error = to_d(x, sigma, self(x, sigma, **kwargs)) - noise
        return error.square().flatten(1).mean(1)


class FourierFeatures(k_diffusion_v1.FourierFeatures):
    """`[.., in_features] -> [.., out_features]`: cos and sin of 2 pi W x, with W random of standard
    deviation `std`. ValueError if `out_features` is odd."""

    def __init__(self, in_features: int, out_features: int, std: float = 1.0):
        if out_features % 2:
            raise ValueError(f"out_features must be even, not {out_features}")
        super().__init__(in_features, out_features)
        self.weight *= std
