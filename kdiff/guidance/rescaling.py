"""Rescaled guidance (Lin et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.asking import CONDITIONAL
from kdiff.guidance.registry import guidance, unguided
from kdiff.guidance.spaces import Space, denoised, per_sample, prediction
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def asks(inner: frozenset[str], sigma: float, *, phi: float, space: Space) -> frozenset[str]:
    return inner if phi == 0 else inner | {CONDITIONAL}


@guidance(
    "rescale",
    paper="Lin et al. 2023 (Common Diffusion Noise Schedules and Sample Steps are Flawed), "
    "section 3.4",
    asks=asks,
    aliases=("guidance_rescale",),
)
def rescale(
    model: Model,
    *,
    phi: Annotated[float, Option("how much of it: 0 is nothing", 0, 1)] = 0.7,
    space: Annotated[Space, Option("in which standard deviations are taken")] = "v",
) -> Denoise:
    """g (1 + phi (std(c) / std(g) - 1)), with g the guided prediction, c the one of the model
    without guidance, and std over all numbers of a sample.

    phi = 0.7 is the paper's, with a scale of 7.5. Its model predicts v, and so do the defaults
    here; diffusers rescales what the network at hand predicts: say `space=noise` for
    eps-prediction, `velocity` for flow models. c costs nothing where the guidance inside has asked
    for it.
    """
    plain = unguided(model)

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        g = model(x, sigma, **cond)
        if phi == 0:
            return g
        c = prediction(space, x, sigma, plain(x, sigma, **cond))
        g = prediction(space, x, sigma, g)
        spread = _std(g)
        ratio = (_std(c) / spread).where(spread > 0, 1)  # nothing to rescale: zero-init, say
        return denoised(space, x, sigma, g * (1 + phi * (ratio - 1)))

    return denoise


def _std(f: Tensor) -> Tensor:
    return per_sample(lambda rows: rows.std(1, correction=0), f)
