"""Static and dynamic thresholding (Saharia et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import per_sample
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

PAPER = (
    "Saharia et al. 2022 (Photorealistic Text-to-Image Diffusion Models with Deep Language "
    "Understanding), section 2.3"
)
Most = Annotated[float, Option("most that data is, in absolute value", 1e-6)]


@guidance("threshold", paper=PAPER, aliases=("static_threshold",))
def threshold(model: Model, *, most: Most = 1.0) -> Denoise:
    """D clamped to [-most, most]. 1 is right for pixels; latents have no such range."""
    return lambda x, sigma, **cond: model(x, sigma, **cond).clamp(-most, most)


@guidance("dynamic_threshold", paper=PAPER, aliases=("dynamic_thresholding",))
def dynamic_threshold(
    model: Model,
    *,
    percentile: Annotated[float, Option("of |D| in a sample, as a fraction", 0, 1)] = 0.995,
    most: Most = 1.0,
) -> Denoise:
    """D clamped to [-s, s], times most / s, with s the percentile of |D| in each sample, but at
    least `most`: so D stays within [-most, most], and only samples that leave it are changed.

    Imagen, DPM-Solver and diff-sampler have most = 1, and DPM-Solver and diffusers have the
    percentile 0.995. Two conventions differ: DPM-Solver's
    `thresholding_max_val` is only the least s, so what it makes always stays within [-1, 1];
    diffusers' `sample_max_value` is the most s, and with its default, 1, all is static.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        d = model(x, sigma, **cond)
        s = per_sample(lambda rows: _quantile(rows, percentile), d.abs()).clamp(min=most)
        return d.clamp(-s, s) * (most / s)

    return denoise


def _quantile(rows: Tensor, fraction: float) -> Tensor:
    """In at least single precision, which PyTorch's function needs."""
    import torch

    exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return exact.quantile(fraction, dim=1).to(rows.dtype)
