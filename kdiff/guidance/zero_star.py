"""CFG-Zero* (Fan et al. 2025)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.classifier_free import Scale, asks_both, leaves_class_out, of_both
from kdiff.guidance.projection import along
from kdiff.guidance.registry import guidance
from kdiff.guidance.spaces import Space, denoised
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


def asks(
    inner: frozenset[str], sigma: float, *, scale: float, zero_above: float, space: Space
) -> frozenset[str]:
    return frozenset() if sigma > zero_above else asks_both(inner, sigma, scale=scale)


@guidance(
    "cfg_zero",
    paper="Fan et al. 2025 (CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching "
    "Models): optimized scale and zero-init",
    asks=asks,
    needs_class=True,
    needs_null_class=leaves_class_out,
    aliases=("cfg_zero_star",),
)
def cfg_zero(
    model: Model,
    *,
    scale: Scale = 1.5,
    zero_above: Annotated[float, Option("noise level above which to predict 0", 0)] = math.inf,
    space: Annotated[Space, Option("of the predictions")] = "velocity",
) -> Denoise:
    """s u + w (c - s u), with c and u as in `cfg`, but as predictions of a flow's velocity, and
    s = <c, u> / |u|^2 in each sample: s u is the part of c along u.

    Above the noise level `zero_above` the prediction is 0 (zero-init), and the network is not
    evaluated. A flow's sample then stays as it is; in kdiff's frame, x = x0 + sigma n, that is
    D = x / (1 + sigma). The paper's first k steps, of a run on the levels s_0 > s_1 > .., are those
    above the level s_k: give s_k as `zero_above` (`kdiff explain` shows the levels).

    diffusers' guider works on what the network predicts; `space=noise` is that for eps-prediction.
    ComfyUI takes s in the space `noise`, but multiplies D(x | no class) by it. The default scale is
    the same as in `cfg`.
    """

    def formula(c: Tensor, u: Tensor) -> Tensor:
        u = along(c, u)
        return u + scale * (c - u)

    guided = of_both(model, scale, space, formula)

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        if sigma > zero_above:
            return denoised(space, x, sigma, 0 * x)
        return guided(x, sigma, **cond)

    return denoise
