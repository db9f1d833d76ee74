"""Class labels as rows for a linear embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """`[N, classes]` rows with the length, dtype and device of `like`. `labels` is `[N]` integers,
    -1 for the null class (a row of zeros), or such rows already; None is the null class."""
    if labels is None:
        return like.new_zeros(len(like), classes)
    if not labels.is_floating_point():  # -1 matches no class
        labels = labels[:, None] == torch.arange(classes, device=labels.device)
    return labels.to(like)
