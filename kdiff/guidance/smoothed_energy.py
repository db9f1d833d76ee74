"""Smoothed energy guidance (Hong 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from kdiff.guidance.layers import AUTO
from kdiff.guidance.perturbed import High, Low, Scale, Where, asks, away_from
from kdiff.guidance.registry import guidance
from kdiff.messages import Unusable
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

    from kdiff.guidance.hooks import Attention

Blur = Annotated[float, Option("standard deviation in tokens; inf: their mean", 0.01)]


@guidance(
    "seg",
    paper="Hong 2024 (Smoothed Energy Guidance), section 3.3",
    asks=asks,
    aliases=("smoothed_energy",),
)
def seg(
    model: Model,
    *,
    scale: Scale = 3.0,
    blur: Blur = math.inf,
    layers: Where = AUTO,
    low: Low = 0.0,
    high: High = math.inf,
) -> Denoise:
    """D + w' (c - c'), with c = D(x | class or prompt) of the network, and c' its answer where the
    queries of self-attention in these layers are blurred over the image: softmax((G Q) K^T) V, with
    a Gaussian G of standard deviation `blur`. Of text and image in one attention, the image's
    queries are blurred. The default scale is the paper's, as its code has it, w' = 3; the paper's
    formula without classes, s c - (s - 1) c' with s = 3, is w' = 2.

    ValueError for a model without such layers, if they have no self-attention, or if samples are
    not images of which the tokens are a grid.
    """
    from kdiff.guidance.hooks import attention

    return away_from(
        lambda network, found, x: attention(
            network, found, partial(blurred, blur=blur, size=x.shape[2:])
        ),
        model,
        scale=scale,
        layers=layers,
        low=low,
        high=high,
        attention=True,
    )


def blurred(attention: Attention, *, blur: float, size: Sequence[int]) -> Tensor:
    """Attention with blurred queries; `size`: height and width of samples."""
    q, image = attention.q.clone(), attention.queries
    height, width = grid(image.stop - image.start, size)
    tokens = q[..., image, :].unflatten(-2, (height, width))
    rows, columns = (matrix(n, blur).to(q) for n in (height, width))
    tokens = (rows @ (columns @ tokens).flatten(-2)).unflatten(-1, (width, -1))
    q[..., image, :] = tokens.flatten(-3, -2)
    attention.q = q
    return attention()


def grid(tokens: int, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of that many tokens of an image of this `size`, divided by a whole number.
    Unusable if it cannot be told."""
    if len(size) == 2:
        for patch in range(1, max(size) + 1):
            height, width = (-(-length // patch) for length in size)
            if height * width == tokens:
                return height, width
    said = " x ".join(map(str, size))
    raise Unusable(f"seg cannot tell how {tokens} tokens lie in samples of {said}: use pag")


def matrix(n: int, blur: float) -> Tensor:
    """The matrix `[n, n]` that blurs n numbers in a row, reflected at the ends. As in the published
    code, the Gaussian is cut off beyond 3 standard deviations, and beyond n / 2; an infinite one is
    the mean of all n."""
    import torch

    if blur == math.inf:
        return torch.full((n, n), 1 / n, dtype=torch.float64)
    radius = min(math.ceil(6 * blur) // 2, n // 2)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / blur) ** 2)
    weights /= weights.sum()
    at = torch.arange(n)[:, None] + offsets.long()
    at = (n - 1) - ((n - 1) - at.abs()).abs()
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, at, weights.expand(n, -1))
