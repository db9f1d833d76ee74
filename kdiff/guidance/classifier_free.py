"""Classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kdiff.conditions import joined
from kdiff.guidance.registry import guidance
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor

NONE = -1  # the null class


def evaluations(sigma: float, *, scale: float) -> int:
    return 1 if scale in (0, 1) else 2


def asks_without_class(*, scale: float) -> bool:
    return scale != 1


@guidance(
    "cfg",
    paper="Ho & Salimans 2022 (Classifier-Free Diffusion Guidance), eq. 6 with w = 1 + its w, on D",
    evaluations=evaluations,
    needs_class=True,
    needs_null_class=asks_without_class,
    aliases=("classifier_free",),
)
def cfg(
    model: Model,
    *,
    scale: Annotated[float, Option("w: 1 is no guidance, 0 is without the class", -100, 100)] = 1.5,
) -> Denoise:
    """u + w (c - u), with c = D(x | class), u = D(x | no class) and w the `scale`; both from one
    call of the network with a batch twice as large. For w = 1 and w = 0 one of them is left out.

    ValueError for a model without classes, or a call without `class_labels`, a row for each sample.
    """
    import torch

    if not model.classes:
        raise ValueError(f"{model.name} has no classes: leave out the guidance cfg")

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        labels = cond.get("class_labels")
        if labels is None:
            raise ValueError("the guidance cfg needs class_labels")
        if not isinstance(labels, torch.Tensor) or labels.shape[:1] != x.shape[:1]:
            raise ValueError("class_labels must be a tensor with a row for each sample")
        without = {**cond, "class_labels": _none_like(labels)}
        if scale in (0, 1):
            return model(x, sigma, **(cond if scale == 1 else without))
        both = model(torch.cat([x, x]), sigma, **joined(cond, without))
        c, u = both.chunk(2)
        return u + scale * (c - u)

    return denoise


def _none_like(labels: Tensor) -> Tensor:
    """No class: -1, or of rows (one-hot, or embeddings) zeros."""
    import torch

    return torch.full_like(labels, NONE if labels.ndim == 1 else 0)
