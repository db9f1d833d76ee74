"""Perturbed-attention guidance (Ahn et al. 2024)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kdiff.guidance.layers import AUTO
from kdiff.guidance.perturbed import High, Low, Scale, Where, asks, away_from
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model

if TYPE_CHECKING:
    from torch import Tensor

    from kdiff.guidance.hooks import Attention


@guidance(
    "pag",
    paper="Ahn et al. 2024 (Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance)",
    asks=asks,
    aliases=("perturbed_attention",),
)
def pag(
    model: Model,
    *,
    scale: Scale = 3.0,
    layers: Where = AUTO,
    low: Low = 0.0,
    high: High = math.inf,
) -> Denoise:
    """D + w' (c - c'), with c = D(x | class or prompt) of the network, and c' its answer where, in
    these layers, each token attends to nothing but itself: self-attention softmax(Q K^T) V is V.
    Where text and image attend to each other, it is the image's tokens that do not see each other.
    The default scale is the one of diffusers' pipelines; its guider has 2.8.

    ValueError for a model without such layers, or if they have no self-attention.
    """
    from kdiff.guidance.hooks import attention

    return away_from(
        lambda network, found, x: attention(network, found, identity),
        model,
        scale=scale,
        layers=layers,
        low=low,
        high=high,
        attention=True,
    )


def identity(attention: Attention) -> Tensor:
    """Each token of the image attends to itself, and to what is not of the image, if there is
    any: a text, or keys that the network has learned."""
    import torch

    (tokens, keys), image = (attention.q.shape[-2], attention.k.shape[-2]), attention.queries
    if image.stop - image.start == keys:
        return attention.v
    seen = torch.ones(tokens, keys, dtype=torch.bool, device=attention.q.device)
    seen[image, attention.keys] = torch.eye(image.stop - image.start, device=seen.device) > 0
    mask = attention.settings.get("attn_mask")
    if mask is not None:
        seen = seen & mask if mask.dtype == torch.bool else mask.masked_fill(~seen, -math.inf)
    attention.settings["attn_mask"] = seen
    return attention()
