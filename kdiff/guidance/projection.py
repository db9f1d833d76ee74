"""Lengths of predictions, and parts along other ones, for each sample by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdiff.guidance.spaces import per_sample

if TYPE_CHECKING:
    from torch import Tensor


def dot(f: Tensor, g: Tensor) -> Tensor:
    """<f, g> of each sample, shaped to multiply `f`."""
    return per_sample(lambda rows: rows.sum(1), f * g)


def length(f: Tensor) -> Tensor:
    """The Euclidean norm of each sample, shaped to multiply `f`."""
    return per_sample(lambda rows: rows.norm(dim=1), f)


def along(f: Tensor, direction: Tensor) -> Tensor:
    """The part of `f` that is parallel to `direction`, <f, e> e / |e|^2 with e the direction, in
    each sample; zero where the direction is zero."""
    square = dot(direction, direction)
    return dot(f, direction) / square.where(square > 0, 1) * direction
