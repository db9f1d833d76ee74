"""Magnitude-aware guidance (MAMBO-G): less of it where c and u are far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kdiff.guidance.classifier_free import Scale, asks_both, leaves_class_out, of_both
from kdiff.guidance.projection import length
from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import Space
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


@guidance(
    "magnitude_aware",
    paper="Zhu et al. 2025 (MAMBO-G), on velocities",
    asks=asks_both,
    needs_class=True,
    needs_null_class=leaves_class_out,
    aliases=("mambo", "mambo_g"),
)
def magnitude_aware(
    model: Model,
    *,
    scale: Scale = 10.0,
    alpha: Annotated[float, Option("how fast w falls with the distance; 0 is cfg", 0)] = 8.0,
    space: Annotated[Space, Option("where the distance is measured")] = "velocity",
) -> Denoise:
    """u + w' (c - u) with w' = 1 + (w - 1) exp(-alpha r) and r = |c - u| / |u|, for each sample;
    |.| is the Euclidean norm, and c and u are as in `cfg`, but as predictions of the `space` (see
    kdiff/guidance/spaces.py).

    The paper has flow models, so the default space is theirs. diffusers takes the prediction of
    whatever network it guides. The defaults of w and alpha are those of diffusers.
    """

    def formula(c: Tensor, u: Tensor) -> Tensor:
        r = (length(c - u) / length(u)).nan_to_num()  # 0 / 0
        return u + (1 + (scale - 1) * (-alpha * r).exp()) * (c - u)

    return of_both(model, scale, space, formula)
