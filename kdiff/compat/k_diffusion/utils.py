"""What `k_diffusion.utils` has that samplers and wrappers need."""

from __future__ import annotations

from torch import Tensor


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """`x` with axes of length 1 at its end up to `target_dims` axes; ValueError if it has more."""
    if x.ndim > target_dims:
        raise ValueError(f"a tensor of {x.ndim} dims cannot be made one of {target_dims}")
    return x.reshape(*x.shape, *[1] * (target_dims - x.ndim))
