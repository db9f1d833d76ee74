"""Skip-layer guidance (Stability AI 2024)."""

from __future__ import annotations

import math

from kdiff.guidance.layers import AUTO
from kdiff.guidance.perturbed import High, Low, Scale, Where, asks, away_from
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model


@guidance(
    "slg",
    paper="Stability AI 2024 (Stable Diffusion 3.5 medium, sd3.5)",
    asks=asks,
    aliases=("skip_layers",),
)
def slg(
    model: Model,
    *,
    scale: Scale = 2.8,
    layers: Where = AUTO,
    low: Low = 0.0,
    high: High = math.inf,
) -> Denoise:
    """D + w' (c - c'), with c = D(x | class or prompt) of the network and c' its answer without
    these layers, which pass on what they get. The usual ones are transformer blocks 7, 8 and 9, or
    the middle of a U-Net.

    The default scale is the one of diffusers; Stability AI's code has 2.5. Both act in a part of
    the steps only, from 1% to 20% (diffusers) or 30% of them. That is an interval of sigma: `high`
    is where these steps begin on the schedule, and `low` where they end.

    ValueError for a model without such layers, or if one cannot be skipped because its output has
    another shape than its input.
    """
    from kdiff.guidance.hooks import skipped

    return away_from(
        lambda network, found, x: skipped(found),
        model,
        scale=scale,
        layers=layers,
        low=low,
        high=high,
    )
