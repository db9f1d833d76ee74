"""Tangential damping (Kwon et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kdiff.guidance.classifier_free import Scale, asks_both, leaves_class_out, of_both
from kdiff.guidance.projection import along, dot
from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import Space
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


@guidance(
    "tcfg",
    paper="Kwon et al. 2025 (TCFG: Tangential Damping Classifier-free Guidance)",
    asks=asks_both,
    needs_class=True,
    needs_null_class=leaves_class_out,
    aliases=("tangential_cfg",),
)
def tcfg(
    model: Model,
    *,
    scale: Scale = 1.5,
    space: Annotated[Space, Option("of the predictions")] = "noise",
) -> Denoise:
    """u' + w (c - u'), with c and u as in `cfg`, but as predictions of the noise, and u' the part
    of u along the first right-singular direction of the matrix with the rows c and u, in each
    sample: what c and u have in common. The paper's scores are proportional to these predictions.

    diffusers' guider works on what the network predicts: `space` says what that is. The default
    scale is the same as in `cfg`.
    """

    def formula(c: Tensor, u: Tensor) -> Tensor:
        u = along(u, _leading(c, u))
        return u + scale * (c - u)

    return of_both(model, scale, space, formula)


def _leading(c: Tensor, u: Tensor) -> Tensor:
    """The first right-singular direction of [c, u], by the leading eigenvector of the 2 x 2 matrix
    of their inner products, which is (cos, sin) of this angle."""
    angle = (2 * dot(c, u)).atan2(dot(c, c) - dot(u, u)) / 2
    return angle.cos() * c + angle.sin() * u
