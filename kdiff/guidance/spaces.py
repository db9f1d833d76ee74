"""Spaces in which papers write guidance, for formulas that depend on it.

With x = x0 + sigma n in the variance-exploding frame, and D the estimate of x0, each is an affine
function of D at a given x and sigma:

| space | formula | of |
|---|---|---|
| `denoised` | D | x0-prediction |
| `noise` | (x - D) / sigma | eps-prediction |
| `v` | (eps - sigma D) / sqrt(1 + sigma^2) | Salimans & Ho 2022: alpha eps - sigma_vp x0 |
| `velocity` | eps - D | rectified flow: n - x0 |

A formula with coefficients that add up to 1, such as u + w (c - u), is the same in all of them.
Norms, projections and standard deviations are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Space = Literal["denoised", "noise", "v", "velocity"]


def _coefficients(space: Space, sigma: float) -> tuple[float, float]:
    """a and b of the prediction a x + b D."""
    if space == "noise":
        return 1 / sigma, -1 / sigma
    if space == "v":
        root = math.hypot(1, sigma)
        return 1 / (sigma * root), -root / sigma
    if space == "velocity":
        return 1 / sigma, -1 / sigma - 1
    return 0.0, 1.0


def prediction(space: Space, x: Tensor, sigma: float, d: Tensor) -> Tensor:
    """What a network of this space predicts where D(x; sigma) = d."""
    if space == "denoised" or sigma == 0:
        return d
    a, b = _coefficients(space, sigma)
    return a * x + b * d


def denoised(space: Space, x: Tensor, sigma: float, f: Tensor) -> Tensor:
    """D(x; sigma) where a network of this space predicts f."""
    if space == "denoised" or sigma == 0:
        return f
    a, b = _coefficients(space, sigma)
    return (f - a * x) / b


def per_sample(reduce: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
    """`reduce`, from `[N, D]` to `[N]`, of `f`, shaped to multiply `f`."""
    return reduce(f.reshape(len(f), -1)).reshape(-1, *[1] * (f.ndim - 1))
