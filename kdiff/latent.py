"""A denoiser of latents, with the autoencoder that turns them into images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdiff.counts import whole_number
from kdiff.denoiser import Denoiser, computing_dtype
from kdiff.model import Model


def decodes(model: Model) -> bool:
    """Whether samples are latents and `model.decode` makes images of them. Asked of the model, or
    of what it stands around."""
    return getattr(model, "vae", None) is not None


def data_of(model: Model) -> str:
    """What the model's data are, as messages say it."""
    if model.shape is None:
        return "data of a shape that it does not say"
    latents = decodes(model) or "latents" in getattr(model, "facts", ())
    return (" x ".join(map(str, model.shape)) or "numbers") + (" latents" if latents else "")


def check_pictures(model: Model) -> None:
    """ValueError if the model does not make pictures, but latents without a decoder, say."""
    shape = model.shape or ()
    if not decodes(model) and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise ValueError(
            f"{model.name} makes {data_of(model)}, not pictures of 1 or 3 channels: use "
            "kdiff.sample in Python, and decode what it returns"
        )


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
        batch = whole_number("batch", batch, 1)
        config, device = self.vae.config, next(self.vae.parameters()).device
        dtype = computing_dtype(self.vae) or latents.dtype
        z = (latents / config.scaling_factor + (config.shift_factor or 0)).to(device, dtype)
        images = [self.vae.decode(part, return_dict=False)[0] for part in z.split(batch)]
        return torch.cat(images).to(latents.dtype)

    def to(self, device=None, dtype=None) -> LatentDenoiser:
        super().to(device, dtype)
        nn.Module.to(self.vae, device=device, dtype=dtype)  # its own `to` warns of every cast
        return self
