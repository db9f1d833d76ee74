"""Magnitude-aware guidance (MAMBO-G): less of it where c and u are far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.asking import also_without_class, pair
from kdiff.guidance.classifier_free import Scale, leaves_class_out
from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import Space, per_sample, prediction
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def asks(inner: frozenset[str], sigma: float, *, scale: float, **options: Any) -> frozenset[str]:
    return inner if scale == 1 else also_without_class(inner, sigma)


@guidance(
    "magnitude_aware",
    paper="Zhu et al. 2025 (MAMBO-G), on velocities",
    asks=asks,
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
    """u + w' (c - u) with w' = 1 + (w - 1) exp(-alpha r) and r = |f_c - f_u| / |f_u|, for each
    sample; |.| is the Euclidean norm, and f is the prediction of the `space` (see
    kdiff/guidance/spaces.py).

    The paper has flow models, so the default space is theirs. diffusers takes the prediction of
    whatever network it guides. The defaults of w and alpha are those of diffusers.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if scale == 1:
            return model(x, sigma, **cond)
        c, u = pair(model, x, sigma, cond)
        f_c, f_u = (prediction(space, x, sigma, d) for d in (c, u))
        r = (per_sample(norms, f_c - f_u) / per_sample(norms, f_u)).nan_to_num()  # 0 / 0
        return u + (1 + (scale - 1) * (-alpha * r).exp()) * (c - u)

    return denoise


def norms(f: Tensor) -> Tensor:
    return f.norm(dim=1)
