"""Adaptive projected guidance (Sadat et al. 2024), without its momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kdiff.guidance.classifier_free import Scale, asks_both, leaves_class_out, of_both
from kdiff.guidance.projection import along, length
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

PAPER = (
    "Sadat et al. 2024 (Eliminating Oversaturation and Artifacts of High Guidance Scales in "
    "Diffusion Models), Algorithm 1"
)
Norm = Annotated[float, Option("r: most norm of c - u; 0 for any", 0)]
Eta = Annotated[float, Option("how much of the part parallel to c", -10, 10)]


def projected(c: Tensor, d: Tensor, scale: float, norm: float, eta: float) -> Tensor:
    """c + (w - 1) (d_perp + eta d_par): d, shortened to `norm`, in its parts orthogonal and
    parallel to c, each sample by itself."""
    if norm > 0:
        d = d * (norm / length(d)).clamp(max=1)
    parallel = along(d, c)
    return c + (scale - 1) * (d - parallel + eta * parallel)


@guidance(
    "apg",
    paper=PAPER,
    asks=asks_both,
    needs_class=True,
    needs_null_class=leaves_class_out,
    aliases=("adaptive_projected",),
)
def apg(model: Model, *, scale: Scale = 1.5, norm: Norm = 2.5, eta: Eta = 0.0) -> Denoise:
    """c + (w - 1) (d_perp + eta d_par), with c and u as in `cfg`, d = c - u shortened to the norm
    `norm`, and its parts orthogonal and parallel to c. On D, as the paper says: projections differ
    between spaces.

    `norm` 2.5 and `eta` 0 are ACE-Step's; larger pictures and latents take a larger norm. `norm` 0
    and `eta` 1 are `cfg`. diffusers' guider works on what the network predicts, with 15 and 1, and
    its scale is w - 1 with `use_original_formulation`. ComfyUI works on D, with 5 and 1. The
    paper's momentum is memory, and so an edit: `--edit apg:momentum=-0.75`. The default scale is
    the same as in `cfg`.
    """
    return of_both(model, scale, "denoised", lambda c, u: projected(c, c - u, scale, norm, eta))
