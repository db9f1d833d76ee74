"""What k-diffusion's samplers are made of, with its signatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from kdiff.compat.k_diffusion.utils import append_dims
from kdiff.samplers.adams import combination, identity, straight
from kdiff.samplers.loops import ancestral_split


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability-flow ODE, (x - denoised) / sigma."""
    return (x - denoised) / append_dims(sigma, x.ndim)


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """(sigma_down, sigma_up): step down to the first, then add noise of the second, to be at
    `sigma_to`. Tensors if `sigma_to` is one."""
    if not eta:
        return sigma_to, 0.0
    down, up = ancestral_split(float(sigma_from), float(sigma_to), eta)
    up = min(up, float(sigma_to))
    like = sigma_to.new_tensor if isinstance(sigma_to, Tensor) else float
    return like(down), like(up)


def linear_multistep_coeff(order: int, t: Sequence[float], i: int, j: int) -> float:
    """The coefficient of the slope at t[i - j] in the step from t[i] to t[i + 1] that integrates
    the polynomial through the last `order` slopes. ValueError if there are not so many."""
    if order - 1 > i:
        raise ValueError(f"order {order} needs {order} slopes, and at step {i} there are {i + 1}")
    nodes = [float(t[i - k]) for k in range(order)]
    return combination(identity, straight, nodes, float(t[i + 1]))[j]


def float_grid(sigmas: Tensor) -> list[float]:
    """The sigmas as kdiff's samplers take them. ValueError if they cannot."""
    grid = [float(s) for s in sigmas]
    if not all(0 < s < math.inf and s != t for s, t in pairwise(grid)) or not min(grid) >= 0:
        raise ValueError(
            "sigmas must be above 0, the last one at least 0, with no two running equal"
        )
    return grid
