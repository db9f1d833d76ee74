"""Perpendicular negatives (Armandpour et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.conditions import negatives
from kdiff.guidance.asking import (
    also_without_class,
    answers,
    empty,
    only_of_nothing,
    without,
)
from kdiff.guidance.projection import along
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def changes(*, scale: float, neg_scale: float) -> bool:
    return scale != 1 or neg_scale != 0


def asks(inner: frozenset[str], sigma: float, **options: float) -> frozenset[str]:
    if not changes(**options):
        return inner
    return also_without_class(inner, sigma) | only_of_nothing(inner)


@guidance(
    "perp_neg",
    paper="Armandpour et al. 2023 (Perp-Neg), with one negative prompt",
    asks=asks,
    needs_class=True,
    needs_null_class=changes,
    needs_negative=changes,
    aliases=("perpendicular_negative",),
)
def perp_neg(
    model: Model,
    *,
    scale: Annotated[float, Option("w of the class or prompt", -100, 100)] = 8.0,
    neg_scale: Annotated[float, Option("weight of the negative one; 0 is cfg", -100, 100)] = 1.0,
) -> Denoise:
    """e + w (p - w_n q'), with p = c - e, q = n - e, and q' = q - (<q, p> / |p|^2) p: the part of
    the negative direction that is perpendicular to the positive one, for each sample. e is D
    without class and prompt, and n is D for the negative one. So what the negative one shares with
    the class is not taken away from it.

    It is homogeneous in differences of D, so the formula is the same for eps, v and velocities. The
    defaults are those of ComfyUI's PerpNegGuider. It has the same projection, but over a whole
    batch. w = 1 with w_n = 0 is no guidance.

    ValueError in a call without a negative class or prompt.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if not changes(scale=scale, neg_scale=neg_scale):
            return model(x, sigma, **cond)
        if not negatives(cond):
            raise ValueError("the guidance perp_neg needs a negative class or prompt")
        c, n, e = answers(model, x, sigma, cond, without(cond), empty(cond))
        p, q = c - e, n - e
        return e + scale * (p - neg_scale * (q - along(q, p)))

    return denoise
