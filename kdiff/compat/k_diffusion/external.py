"""`k_diffusion.external`: wrappers that make denoisers of other projects' networks.

`wrapper(x, sigma, **kwargs)` gives the denoised; `sigma` is `[N]`. To use one in kdiff itself, give
it `x.new_full([len(x)], sigma)`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdiff.compat.k_diffusion._preconditioned import Preconditioned, v_scalings
from kdiff.compat.k_diffusion._schedules import append_zero
from kdiff.counts import whole_number


class VDenoiser(Preconditioned):
    """A network of v-diffusion-pytorch: predicts v, with t = 2 atan(sigma) / pi in [0, 1]."""

    def __init__(self, inner_model: Any):
        super().__init__(inner_model)

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return v_scalings(sigma, self.sigma_data)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        return sigma.atan() * 2 / math.pi

    def t_to_sigma(self, t: Tensor) -> Tensor:
        return (t * math.pi / 2).tan()


class DiscreteSchedule(Preconditioned):
    """A model with a table of `sigmas`, one a timestep. Between timesteps log sigma is linear in t;
    with `quantize`, t is the timestep nearest in log sigma."""

    sigmas: Tensor
    log_sigmas: Tensor

    def __init__(self, sigmas: Tensor, quantize: bool, inner_model: Any = None):
        super().__init__(inner_model)
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())
        self.quantize = quantize

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        return self.sigmas[-1]

    def get_sigmas(self, n: int | None = None) -> Tensor:
        """The sigmas of `n` even timesteps from the last to the first (default: all), and 0."""
        if n is None:
            return append_zero(self.sigmas.flip(0))
        n = whole_number("n", n, 1)
        t = torch.linspace(len(self.sigmas) - 1, 0, n, device=self.sigmas.device)
        return append_zero(self.t_to_sigma(t))

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        """Timesteps, clamped to the table; integers if they are quantized."""
        log_sigma = sigma.log()
        if self.quantize if quantize is None else quantize:
            distance = (log_sigma.reshape(-1, 1) - self.log_sigmas).abs()
            return distance.argmin(1).reshape(sigma.shape)
        above = torch.searchsorted(self.log_sigmas, log_sigma.contiguous(), right=True)
        low = (above - 1).clamp(0, len(self.sigmas) - 2)
        start, end = self.log_sigmas[low], self.log_sigmas[low + 1]
        return low + ((log_sigma - start) / (end - start)).clamp(0, 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        t = t.float()
        low, high = t.floor().long(), t.ceil().long()
        return torch.lerp(
            self.log_sigmas[low], self.log_sigmas[high], t.frac().to(self.log_sigmas)
        ).exp()


def _sigmas(alphas_cumprod: Tensor) -> Tensor:
    return ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5


class DiscreteEpsDDPMDenoiser(DiscreteSchedule):
    """A DDPM network that predicts eps; `get_eps` is how it is called."""

    def __init__(self, model: Any, alphas_cumprod: Tensor, quantize: bool):
        super().__init__(_sigmas(alphas_cumprod), quantize, model)

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return -sigma, v_scalings(sigma, self.sigma_data)[2]

    def get_eps(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner_model(*args, **kwargs)

    def output(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        return self.get_eps(x, t, **kwargs)


class OpenAIDenoiser(DiscreteEpsDDPMDenoiser):
    """A network of OpenAI's guided-diffusion with its `diffusion` (for `alphas_cumprod`); the half
    of its output that is a learned variance is dropped."""

    def __init__(
        self,
        model: Any,
        diffusion: Any,
        quantize: bool = False,
        has_learned_sigmas: bool = True,
        device: Any = "cpu",
    ):
        alphas_cumprod = torch.tensor(diffusion.alphas_cumprod, dtype=torch.float32, device=device)
        super().__init__(model, alphas_cumprod, quantize)
        self.has_learned_sigmas = has_learned_sigmas

    def get_eps(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.inner_model(*args, **kwargs)
        return output.chunk(2, dim=1)[0] if self.has_learned_sigmas else output


class CompVisDenoiser(DiscreteEpsDDPMDenoiser):
    """A latent diffusion model of CompVis (Stable Diffusion 1): it has `alphas_cumprod` and
    `apply_model(x, t, cond)`."""

    def __init__(self, model: Any, quantize: bool = False, device: Any = "cpu"):
        super().__init__(model, model.alphas_cumprod, quantize)

    def get_eps(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner_model.apply_model(*args, **kwargs)


class DiscreteVDDPMDenoiser(DiscreteSchedule):
    """A DDPM network that predicts v; `get_v` is how it is called."""

    def __init__(self, model: Any, alphas_cumprod: Tensor, quantize: bool):
        super().__init__(_sigmas(alphas_cumprod), quantize, model)

    def get_scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return v_scalings(sigma, self.sigma_data)

    def get_v(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner_model(*args, **kwargs)

    def output(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        return self.get_v(x, t, **kwargs)


class CompVisVDenoiser(DiscreteVDDPMDenoiser):
    """A latent diffusion model that predicts v (Stable Diffusion 2): as `CompVisDenoiser`."""

    def __init__(self, model: Any, quantize: bool = False, device: Any = "cpu"):
        super().__init__(model, model.alphas_cumprod, quantize)

    def get_v(self, x: Tensor, t: Tensor, cond: Any, **kwargs: Any) -> Tensor:
        return self.inner_model.apply_model(x, t, cond)
