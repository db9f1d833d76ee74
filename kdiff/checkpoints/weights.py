"""A network's tensors, from any kind of file into memory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn


def load_weights(
    network: nn.Module, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None
) -> None:
    """Give `network`, which may be on the meta device, copies of `tensors` by name, and put it into
    evaluation mode, without gradients. Parameters get `dtype`; None: the dtype that they have in
    the file. Buffers, such as frequencies, are not made narrower.

    Tensors are taken one by one, so that each can be freed before the next is read. ValueError for
    complex ones, RuntimeError unless names and shapes are the network's.
    """
    buffers = {name for name, _ in network.named_buffers()}
    copies = {}
    for name, value in tensors:
        if value.is_complex():
            raise ValueError(f"{name} has complex numbers")
        wide = torch.promote_types(value.dtype, dtype) if dtype and name in buffers else dtype
        copies[name] = _copy(value, wide)
    network.load_state_dict(copies, assign=True)
    if dtype is None:
        network.to(common_type(p for p in network.parameters() if p.ndim > 1))
    network.eval().requires_grad_(False)


def common_type(tensors: Iterable[Tensor]) -> torch.dtype | None:
    """The narrowest type that holds the values of all floating-point `tensors`. None if there are
    no such tensors."""
    found = {value.dtype for value in tensors if value.is_floating_point()}
    return reduce(torch.promote_types, found) if found else None


def _copy(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """In `dtype`, if it is floating-point. Four-dimensional tensors become channels_last, as
    `Denoiser` wants them: if it copied them again, the process would keep the freed memory."""
    return value.to(
        dtype if value.is_floating_point() else None,
        copy=True,
        memory_format=torch.channels_last if value.ndim == 4 else torch.preserve_format,
    )
