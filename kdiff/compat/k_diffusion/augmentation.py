"""`k_diffusion.augmentation`: the wrapper that its networks are saved with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdiff.compat.k_diffusion._missing import says_what_is_missing

__getattr__ = says_what_is_missing("augmentation")

_AUGMENTATIONS = 9


class KarrasAugmentWrapper(nn.Module):
    """Tells an `image_v1` network, before its other `mapping_cond`, how its input was augmented:
    not at all without `aug_cond` `[N, 9]`."""

    def __init__(self, model: Any):
        super().__init__()
        self.inner_model = model

    def forward(
        self,
        input: Tensor,
        sigma: Tensor,
        aug_cond: Tensor | None = None,
        mapping_cond: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        cond = input.new_zeros(len(input), _AUGMENTATIONS) if aug_cond is None else aug_cond
        if mapping_cond is not None:
            cond = torch.cat([cond, mapping_cond], dim=1)
        return self.inner_model(input, sigma, mapping_cond=cond, **kwargs)
