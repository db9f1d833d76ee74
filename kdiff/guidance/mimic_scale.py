"""Guidance at one scale with the range of another: sd-dynamic-thresholding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.asking import also_without_class, pair
from kdiff.guidance.classifier_free import Scale
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def changes(*, scale: float, mimic: float, **options: Any) -> bool:
    return not scale == mimic == 1


def asks(inner: frozenset[str], sigma: float, **options: Any) -> frozenset[str]:
    return also_without_class(inner, sigma) if changes(**options) else inner


@guidance(
    "mimic",
    paper="Goodwin 2023 (sd-dynamic-thresholding), constant scales, channels apart, MEAN, AD",
    asks=asks,
    needs_class=True,
    needs_null_class=changes,
    aliases=("dynthresh",),
)
def mimic(
    model: Model,
    *,
    scale: Scale = 15.0,
    mimic: Annotated[float, Option("the scale whose range it gets", 0, 100)] = 7.0,
    percentile: Annotated[float, Option("below 1 the farthest values are clamped", 0, 1)] = 1.0,
) -> Denoise:
    """Classifier-free guidance at `scale`, squeezed into the range that the scale `mimic` gives.

    With D_w = u + w (c - u), and y_w = D_w - m_w its distances from the mean m_w of each channel of
    each sample, it is

        m_w + (r / b) clamp(y_w, -b, b)    with r = max |y_mimic| and b = max(r, q),

    where q is the `percentile` quantile of |y_w|. So at 1 nothing is clamped, and channels that are
    not wider than the other scale makes them stay as they are. Both scales equal is `cfg`.

    Of the many modes of the extension this is: both scales constant, feature channels separate,
    scaling from the mean, variability by absolute distance, phi = 1. It works on D, as there, and
    its result depends on it. `mimic` and `percentile` have the extension's defaults.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if not changes(scale=scale, mimic=mimic):
            return model(x, sigma, **cond)
        c, u = pair(model, x, sigma, cond)
        guided, other = (channels(u + w * (c - u)) for w in (scale, mimic))
        mean = guided.mean(-1, keepdim=True)
        y, like = guided - mean, other - other.mean(-1, keepdim=True)
        r = like.abs().amax(-1, keepdim=True)
        b = r.maximum(quantiles(y.abs(), percentile))
        squeezed = y.clamp(-b, b) * (r / b).nan_to_num()  # 0 / 0 in channels of one value
        return (mean + squeezed).reshape(x.shape)

    return denoise


def channels(d: Tensor) -> Tensor:
    """[N, C, all else]."""
    return d.reshape(*d.shape[:2], -1)


def quantiles(y: Tensor, percentile: float) -> Tensor:
    """Of the last axis. torch's quantile has a limit of size, so it gets one sample at a time."""
    import torch

    if percentile == 1:
        return y.amax(-1, keepdim=True)
    return torch.stack([one.quantile(percentile, -1, keepdim=True) for one in y])
