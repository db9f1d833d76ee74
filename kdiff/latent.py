"""A denoiser of latents, with the autoencoder that turns them into images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdiff.denoiser import Denoiser


class LatentDenoiser(Denoiser):
    """A `Denoiser` whose samples are latents `[N, *shape]`; `decode` makes images of them.

    `vae` is diffusers' `AutoencoderKL`. The denoiser works on (z - shift) scale for its latents z,
    with the `scaling_factor` and `shift_factor` of its configuration.
    """

    def __init__(self, *args: Any, vae: nn.Module, **keywords: Any):
        super().__init__(*args, **keywords)
        self.vae: Any = vae.eval().requires_grad_(False)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int = 8) -> Tensor:
        """Latents `[N, *shape]` -> images `[N, channels, height, width]`, in about [-1, 1], in the
        dtype of the latents; `batch` at a time."""
        config, parameter = self.vae.config, next(self.vae.parameters())
        z = (latents / config.scaling_factor + (config.shift_factor or 0)).to(parameter)
        images = [self.vae.decode(part, return_dict=False)[0] for part in z.split(batch)]
        return torch.cat(images).to(latents.dtype)

    def to(self, device=None, dtype=None) -> LatentDenoiser:
        super().to(device, dtype)
        nn.Module.to(self.vae, device=device, dtype=dtype)  # its own `to` warns of every cast
        return self
