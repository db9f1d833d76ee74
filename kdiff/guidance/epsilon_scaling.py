"""Epsilon scaling (Ning et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor


@guidance(
    "eps_scaling",
    paper="Ning et al. 2023 (Elucidating the Exposure Bias in Diffusion Models): uniform schedule",
)
def eps_scaling(
    model: Model, *, k: Annotated[float, Option("eps is divided by it", 0.5, 2)] = 1.005
) -> Denoise:
    """eps / k in the place of eps, which is D + (1 - 1 / k) (x - D): the paper's uniform schedule.

    It makes up for networks that predict too much noise along a run. k = 1 is nothing, 1.005 the
    default of ComfyUI.
    """

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        d = model(x, sigma, **cond)
        return d if k == 1 else d + (1 - 1 / k) * (x - d)

    return denoise
