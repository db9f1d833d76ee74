"""A reference: the finished statistics of a set of images, and a label that says what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from kdiff.eval.images.pictures import Pictures
from kdiff.eval.statistics import STATISTICS, Statistic
from kdiff.eval.statistics.gaussian import Gaussian


@dataclass(frozen=True, eq=False, kw_only=True)
class Label:
    """What the statistics describe: `n` images of `source`, seen by the network `features` with
    this `resize` mode (None: the network has none) and `weights` (SHA-256). None: unknown."""

    name: str
    n: int | None = None
    features: str | None = None
    resize: str | None = None
    weights: str | None = None
    source: str = ""
    created: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True, init=False)
class Reference(Label):
    """`statistics` are finished, by the names that they have in
    `kdiff.eval.statistics.STATISTICS`: "gaussian", "spatial_gaussian", which sFID takes, "rows",
    which no file holds. The keywords `gaussian` and `spatial` give the first two. `images()` opens
    the images in the same file, if there are any; `notes` belong beside figures."""

    statistics: Mapping[str, Any]
    images: Callable[[], Pictures] | None
    notes: tuple[str, ...]

    def __init__(
        self,
        *,
        gaussian: Gaussian | None = None,
        spatial: Gaussian | None = None,
        statistics: Mapping[str, Any] | None = None,
        images: Callable[[], Pictures] | None = None,
        notes: tuple[str, ...] = (),
        **label: Any,
    ):
        super().__init__(**label)
        given = {"gaussian": gaussian, "spatial_gaussian": spatial, **(statistics or {})}
        present = {name: finished for name, finished in given.items() if finished is not None}
        for name, value in {"statistics": present, "images": images, "notes": notes}.items():
            object.__setattr__(self, name, value)

    def part(self, needed: str | Statistic) -> Any:
        """The finished statistic, or the attribute of that name. ValueError, saying what to do, if
        the reference lacks it."""
        name = needed if isinstance(needed, str) else needed.name
        if name in self.statistics:
            return self.statistics[name]
        known = STATISTICS.get(name) if isinstance(needed, str) else needed
        if known is None:
            return getattr(self, name)
        raise ValueError(f"reference {self.name} {known.missing}")

    @property
    def gaussian(self) -> Gaussian:
        """The mean and covariance of the features."""
        return self.part("gaussian")

    @property
    def spatial(self) -> Gaussian | None:
        """The mean and covariance of the spatial features, which sFID takes; None if there are
        none."""
        return self.statistics.get("spatial_gaussian")

    @property
    def spatial_gaussian(self) -> Gaussian:
        """As `spatial`. ValueError if there are none."""
        return self.part("spatial_gaussian")

    @property
    def rows(self) -> np.ndarray:
        """All features `[n, d]`. ValueError if they were not kept."""
        return self.part("rows")

    @property
    def mean(self) -> np.ndarray:
        """`[d]`, float64."""
        return self.gaussian.mean

    @property
    def cov(self) -> np.ndarray:
        """`[d, d]`, float64."""
        return self.gaussian.cov

    @property
    def label(self) -> Label:
        return Label(**{field.name: getattr(self, field.name) for field in fields(Label)})

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds: the statistics that have a prefix for it, as float32 arrays."""
        return {
            statistic.prefix + key: array
            for statistic in STATISTICS.values()
            if statistic.prefix is not None and statistic.name in self.statistics
            for key, array in self.statistics[statistic.name].save().items()
        }

    @cached_property
    def sha256(self) -> str:
        """Of the statistics as our files hold them: the same before saving and after."""
        digest = hashlib.sha256()
        for array in self.arrays().values():
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()

    def record(self) -> dict[str, str | int | None]:
        """What names it in results."""
        return {"name": self.name, "n": self.n, "sha256": self.sha256}
