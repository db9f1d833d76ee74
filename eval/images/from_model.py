"""Images that a model makes, as a source for evaluation; they never touch the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdiff.conditions import chosen
from kdiff.counts import whole_number
from kdiff.driver import State
from kdiff.images import to_uint8
from kdiff.model import Model
from kdiff.plans import Plan
from kdiff.sampling import run

MOST_IMAGES = 10_000_000


def every_class(model: Model, n: int) -> tuple[list[int] | None, str | None]:
    """The class of each of n images, and how it was chosen: all classes "in turn"; with fewer
    images than classes, classes "spread" evenly, because the first ones may be of one kind
    (ImageNet's are animals); None for a model without classes. ValueError unless n is a whole
    number from 1 to ten million."""
    n = whole_number("the number of images", n, 1, MOST_IMAGES)
    classes = len(model.classes)
    if not classes:
        return None, None
    if n < classes:
        return [i * classes // n for i in range(n)], "spread"
    return [i % classes for i in range(n)], "in turn"


@dataclass(frozen=True)
class Generated:
    """One image for each of `seeds`, of the class in `labels` (None: no classes) and under other
    conditions in `told`, with a row for each. ValueError if a seed comes twice: its images would be
    counted as independent, and are not."""

    model: Model
    plan: Plan
    seeds: Sequence[int]
    labels: Sequence[int] | None = None
    deterministic: bool = False
    ended: Callable[[State], None] | None = None  # gets the last state of each batch
    told: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, range) and len(set(map(int, self.seeds))) < len(self.seeds):
            raise ValueError("a seed comes twice: images that are evaluated need one of their own")

    def __len__(self) -> int:
        return len(self.seeds)

    def batches(self, batch: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """uint8 `[n, H, W, 3]`, at most `batch` at a time, of the seeds with these numbers."""
        seeds = [self.seeds[i] for i in indices]
        if not seeds:  # of several processes, some may have none
            return
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        runs = run(
            self.model,
            self.plan,
            seeds,
            batch=batch,
            deterministic=self.deterministic,
            cond={"class_labels": labels, **chosen(self.told, indices)},
        )
        for _, states in runs:
            last = deque(states, maxlen=1)[0]
            if self.ended is not None:
                self.ended(last)
            yield three_channels(to_uint8(self.model.decode(last.x)))


def three_channels(images: np.ndarray) -> np.ndarray:
    """`[N, H, W, 1 or 3]` -> `[N, H, W, 3]`."""
    return images.repeat(3, axis=3) if images.shape[3] == 1 else images
