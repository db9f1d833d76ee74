"""What a statistic is: something that is collected of a set of images, in any portions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

Part = Literal["pool", "spatial", "logits"]
Self = TypeVar("Self", bound="Sums")


class Sums(Protocol):
    """What a statistic collects: it grows by `update`, and two of disjoint images add up."""

    def update(self, rows: np.ndarray, indices: Sequence[int]) -> None:
        """Add the features `[b, dim]` of the images with these numbers."""
        ...

    def __add__(self: Self, other: Self) -> Self: ...


def _as_they_are(sums: Any) -> Any:
    return sums


@dataclass(frozen=True)
class Statistic:
    """`start(n, dim)` gives empty `Sums` for n images whose features have `dim` dimensions; they
    are fed the part of `Features` that the statistic `takes`.

    A reference holds `finish(sums)`, by default the sums themselves. A reference's file holds it
    too if there is a `prefix` for the names of its arrays: `finish(sums).save()` gives float32
    arrays by name, and `load(arrays, n)` makes the same of them, n being the number of images or
    None if that is unknown. `missing` completes the sentence "reference NAME .." where a reference
    lacks the statistic.
    """

    name: str
    takes: Part
    start: Callable[[int, int], Any]
    finish: Callable[[Any], Any] = _as_they_are
    prefix: str | None = None
    load: Callable[[Mapping[str, np.ndarray], int | None], Any] | None = None
    missing: str = "lacks a statistic that this metric needs: give its images as --ref"
