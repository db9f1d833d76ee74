"""A denoiser of latents, with the autoencoder that turns them into images, and the text encoders
that turn prompts into conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdiff.counts import finite_number, sizes, whole_number
from kdiff.denoiser import Denoiser, computing_dtype
from kdiff.model import Model
from kdiff.preconditioners import Precond

if TYPE_CHECKING:
    from kdiff.text import TextEncoders


def decodes(model: Model) -> bool:
    """Whether samples are latents and `model.decode` makes images of them. Asked of the model, or
    of what it stands around."""
    return getattr(model, "vae", None) is not None


def takes_prompts(model: Model) -> bool:
    """Whether it has text encoders, and so `model.encode`. Asked likewise."""
    return bool(getattr(model, "takes_prompts", False))


def check_takes_prompts(model: Model) -> None:
    """ValueError, with the reason if it is known, unless the model takes prompts."""
    if not takes_prompts(model):
        why = getattr(model, "facts", {}).get("prompts")
        said = f"{getattr(model, 'name', 'the model')} takes no prompts"
        raise ValueError(f"{said}: {why}" if why else said)


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
    with the `scaling_factor` and `shift_factor` of its configuration. `texts` are the encoders of
    its prompts, None without any. `levels(shape)` is its preconditioner for latents of another
    shape, None if it is the same for all.
    """

    network: Any

    def __init__(
        self,
        *args: Any,
        vae: nn.Module,
        texts: TextEncoders | None = None,
        levels: Callable[[Sequence[int]], Precond] | None = None,
        **keywords: Any,
    ):
        super().__init__(*args, **keywords)
        self.vae: Any = vae.eval().requires_grad_(False)
        self.texts, self.levels = texts, levels

    @property
    def takes_prompts(self) -> bool:
        """Whether there are text encoders."""
        return self.texts is not None

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of its images."""
        _, height, width = self.shape
        return width * self._factor, height * self._factor

    @property
    def _factor(self) -> int:
        """How many pixels wide a latent is: the autoencoder halves between its blocks."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(
        self,
        prompts: str | Sequence[str],
        negative: str | Sequence[str] | None = None,
        *,
        distilled_guidance: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Any]:
        """The conditions of these prompts, a row for each, for `kdiff.sample` as `cond`.

        For each X of prompts there is also `null_X`, for no prompt, and if `negative` is given (one
        text, or one for each prompt) `negative_X`: guidance takes them where it leaves the prompt
        out. The encoders compute on `device` in `dtype`, by default the network's, and are in
        memory only meanwhile; each different text is encoded once. `distilled_guidance` is the
        scale that a network with distilled guidance is told, by default the usual one.
        ValueError if the model takes no prompts, or has no such guidance.
        """
        from kdiff.text.rows import as_texts, rows

        check_takes_prompts(self)
        assert self.texts is not None
        prompts = as_texts("prompts", prompts)
        if negative is not None:
            negative = as_texts("negative", negative, len(prompts))
        sized = self.network.conditions(*self.size, self.distilled(distilled_guidance))
        made = rows(
            *(self.texts, prompts, negative),
            device=self.device if device is None else device,
            dtype=dtype or self.dtype or torch.float32,
        )
        n = len(prompts)
        return {**made, **{key: value.expand(n, *value.shape) for key, value in sized.items()}}

    def distilled(self, scale: float | None = None) -> float | None:
        """The scale that the network is told, by default the usual one; None for a network without
        distilled guidance. ValueError if it has none, and is to be told one."""
        usual = self.network.distilled_guidance
        if scale is not None and usual is None:
            raise ValueError(
                f"{self.name} has no distilled guidance: guide it, for instance by cfg:scale=5"
            )
        return usual if scale is None else finite_number("distilled_guidance", scale)

    def resized(self, width: int | None = None, height: int | None = None) -> LatentDenoiser:
        """A copy for images of this size, by default its own, which shares the network. Where the
        noise levels depend on the size, it has those of this one.

        ValueError unless the autoencoder and the network allow it.
        """
        given = {"width": width, "height": height}
        if not self.network.resizable and any(side is not None for side in given.values()):
            size = " x ".join(map(str, self.size))
            raise ValueError(f"{self.name} makes images of one size, {size}")
        multiple = self._factor * self.network.patch
        most = self.network.most * self._factor
        sides = []
        for (name, side), own in zip(given.items(), self.size, strict=True):
            side = whole_number(name, own if side is None else side, multiple)
            if side % multiple or side > most:
                below = min(side, most) // multiple * multiple
                nearest = " or ".join(map(str, (below, below + multiple)[: 1 + (below < most)]))
                upto = f", up to {most}" if side > most else ""
                raise ValueError(
                    f"{name} must be a multiple of {multiple}{upto}, not {side}: take {nearest}"
                )
            sides.append(side // self._factor)
        return self.replace(shape=(self.shape[0], *reversed(sides)))

    def replace(self, precond: Precond | str | None = None, **changes: Any) -> LatentDenoiser:
        """As `Denoiser.replace`; another `shape` brings its own noise levels, where these depend on
        it."""
        if precond is None and self.levels is not None and "shape" in changes:
            precond = self.levels(sizes(changes["shape"]))
        other: Any = super().replace(precond, **changes)
        return other

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
