"""Classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.asking import also_without_class, only_without_class, pair, without
from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import Space, denoised, prediction
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

Scale = Annotated[float, Option("w: 1 is no guidance, 0 is without the class", -100, 100)]


def asks(inner: frozenset[str], sigma: float, *, scale: float) -> frozenset[str]:
    if scale in (0, 1):
        return inner if scale == 1 else only_without_class(inner)
    return also_without_class(inner, sigma)


def asks_both(
    inner: frozenset[str], sigma: float, *, scale: float, **options: Any
) -> frozenset[str]:
    """The questions of `of_both`."""
    return inner if scale == 1 else also_without_class(inner, sigma)


def leaves_class_out(*, scale: float, **options: Any) -> bool:
    return scale != 1


@guidance(
    "cfg",
    paper="Ho & Salimans 2022 (Classifier-Free Diffusion Guidance), eq. 6 with w = 1 + its w, on D",
    asks=asks,
    needs_class=True,
    needs_null_class=leaves_class_out,
    aliases=("classifier_free",),
)
def cfg(model: Model, *, scale: Scale = 1.5) -> Denoise:
    """u + w (c - u), with c = D(x | class), u = D(x | no class) and w the `scale`. For w = 1 and
    w = 0 one of them is left out.

    The coefficients of c and u add up to 1, so the same formula holds for eps, v and velocities.
    The default scale, 1.5, is kdiff's own choice; Stable Diffusion is used with 7.5.
    """
    return extrapolated(model, scale)


@guidance(
    "ho_salimans",
    paper="Ho & Salimans 2022 (Classifier-Free Diffusion Guidance), eq. 6 as it stands",
    asks=lambda inner, sigma, *, s: asks(inner, sigma, scale=1 + s),
    needs_class=True,
    needs_null_class=lambda *, s: s != 0,
)
def ho_salimans(
    model: Model, *, s: Annotated[float, Option("w - 1: 0 is no guidance", -100, 100)] = 0.5
) -> Denoise:
    """(1 + s) c - s u, which is `cfg` with w = 1 + s: as papers and lectures that write
    (1 + s) eps_y - s eps_0 have it. The default is the scale of `cfg`."""
    return extrapolated(model, 1 + s)


def extrapolated(model: Model, scale: float) -> Denoise:
    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if scale in (0, 1):
            return model(x, sigma, **(cond if scale == 1 else without(cond)))
        c, u = pair(model, x, sigma, cond)
        return u + scale * (c - u)

    return denoise


def of_both(
    model: Model, scale: float, space: Space, formula: Callable[[Tensor, Tensor], Tensor]
) -> Denoise:
    """`formula` of c and u, which it gets and answers as predictions in this space; the model
    itself at scale 1."""

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if scale == 1:
            return model(x, sigma, **cond)
        c, u = (prediction(space, x, sigma, d) for d in pair(model, x, sigma, cond))
        return denoised(space, x, sigma, formula(c, u))

    return denoise
