"""The one loop body of evaluations and references: images, their features, statistics of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdiff.eval.statistics.contract import Statistic

if TYPE_CHECKING:
    from kdiff.eval.features import FeatureNetwork, Features


class Collection:
    """Statistics of `n` images that come in portions; collections of portions add up.

    `users` has the statistics, each with the name of what needs it. `widths` are the dimensions
    that parts of the features must have, where they are known.
    """

    def __init__(
        self, users: Mapping[Statistic, str], n: int, widths: Mapping[str, int] | None = None
    ):
        self.users, self.n, self.widths = users, n, widths or {}
        self.sums: dict[str, Any] = {}

    def look(self, network: FeatureNetwork, images: np.ndarray) -> Features:
        """The features of the images, without the parts that no statistic takes. ValueError if the
        network lacks a part."""
        features = network(images)
        taken = {statistic.takes: user for statistic, user in self.users.items()}
        for part, user in taken.items():
            if getattr(features, part) is None:
                what = "spatial features" if part == "spatial" else part
                raise ValueError(f"{network.name} has no {what}, which {user} needs")
        unused: dict[str, Any] = dict.fromkeys({"logits", "spatial"} - taken.keys())
        return features._replace(**unused)

    def add(self, features: Features, indices: Sequence[int]) -> None:
        """Add the features of the images with these numbers, from 0 to n - 1. ValueError if they
        have another width than they must, or a statistic refuses them."""
        for statistic in self.users:
            rows = getattr(features, statistic.takes)
            width = self.widths.get(statistic.takes, rows.shape[1])
            if rows.shape[1] != width:
                raise ValueError(
                    f"the features have {rows.shape[1]} dimensions, the reference {width}"
                )
            if statistic.name not in self.sums:
                self.sums[statistic.name] = statistic.start(self.n, rows.shape[1])
            self.sums[statistic.name].update(rows, indices)

    def __add__(self, other: Collection) -> Collection:
        both = Collection(self.users, self.n, self.widths)
        both.sums = dict(self.sums)
        for name, sums in other.sums.items():
            both.sums[name] = both.sums[name] + sums if name in both.sums else sums
        return both

    def __getstate__(self) -> dict[str, Any]:
        """Only the sums go from process to process: a statistic may be a lambda."""
        return {**self.__dict__, "users": {}}

    def finished(self) -> dict[str, Any]:
        """What a reference holds, by the statistics' names. ValueError if images are missing."""
        return {s.name: s.finish(self.sums[s.name]) for s in self.users}
