"""How a network's tensors lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def own(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy in memory of its own, in `dtype` (None, or where it is of integers: its type), and in
    the order that `Denoiser` has weights of convolutions in. Were it to copy them again, the pieces
    that this frees would stay with the process."""
    return value.to(
        dtype if value.is_floating_point() else None,
        copy=True,
        memory_format=torch.channels_last if value.ndim == 4 else torch.preserve_format,
    )
