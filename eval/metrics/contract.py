"""What a metric is, and the registry of metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdiff.eval.statistics import STATISTICS, Statistic, find_statistic
from kdiff.eval.statistics.gaussian import Gaussian
from kdiff.names import Registry, UnknownName, unknown_name

if TYPE_CHECKING:
    from kdiff.eval.references import Reference

Estimate = tuple[float, float | None]  # a value and its error, None if there is no estimate of it


@dataclass(frozen=True)
class Metric:
    """`compute(sums, part)` gives a list of (value, error), of which this metric is number `index`.

    `stream` is the statistic that is made of the images, `sums`, and `needs` the one that is made
    of the reference, `part`; each is a `Statistic` or the name of one in `STATISTICS`. With
    `needs=""` no reference is looked at, and `part` is None. Metrics with the same `compute`,
    `stream` and `needs` are computed together, once.

    `least` is the smallest number of images that has a figure: a number, or a function of `part`.
    `least_reference` is the smallest number of rows in `part`. `label` is how results name the
    metric; `aliases` are further names on the command line.
    """

    label: str
    help: str
    stream: str | Statistic
    needs: str | Statistic
    compute: Callable[[Any, Any], list[Estimate]]
    index: int = 0
    least: int | Callable[[Any], int] = 2
    higher_is_better: bool = False
    aliases: tuple[str, ...] = ()
    least_reference: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "aliases", (self.label, *self.aliases))

    @property
    def statistic(self) -> Statistic:
        """What is made of the images. UnknownName if there is no such statistic."""
        return find_statistic(self.stream)

    @property
    def needs_logits(self) -> bool:
        return self.statistic.takes == "logits"

    @property
    def reference_statistic(self) -> Statistic | None:
        """What is made of the reference's images; None if that is nothing, or an attribute that
        every `Reference` has."""
        return STATISTICS.get(self.needs) if isinstance(self.needs, str) else self.needs

    def part_of(self, reference: Reference | None) -> Any:
        """What `compute` gets of the reference. ValueError if the reference lacks it, or its
        covariance is not one."""
        if not self.needs:
            return None
        if reference is None:
            raise ValueError("a reference is needed")
        part = reference.part(self.needs)
        if isinstance(part, Gaussian):
            part.factor  # noqa: B018  better now than after all images are computed
        return part

    def width(self, part: Any) -> tuple[str, int] | None:
        """Which part of the features must have how many dimensions, if `part` says so."""
        statistic = self.reference_statistic
        if statistic is not None and isinstance(part, Gaussian):
            return statistic.takes, len(part.mean)
        if statistic is not None and isinstance(part, np.ndarray) and part.ndim == 2:
            return statistic.takes, part.shape[1]
        return None

    def check_sizes(self, name: str, n: int, part: Any) -> None:
        """ValueError if the images, or the rows of the reference, are too few."""
        if self.least_reference and len(part) < self.least_reference:
            raise ValueError(
                f"{name} needs at least {self.least_reference:,} images in the reference"
            )
        least = self.least if isinstance(self.least, int) else self.least(part)
        if n < least:
            raise ValueError(f"{name} needs at least {least:,} images, not {n:,}")


def _adopt(registry: Registry[Metric], name: str, thing: Any) -> None:
    if isinstance(thing, Metric):
        registry.setdefault(name, thing)
    else:
        warnings.warn(
            f"the entry point {name} of kdiff.metrics is {type(thing).__name__}, not a "
            "kdiff.eval.metrics.Metric: it is left out",
            stacklevel=2,
        )


METRICS: Registry[Metric] = Registry("metric", "kdiff.metrics", _adopt)


def all_metrics() -> Registry[Metric]:
    """`METRICS`, with the metrics of other packages."""
    return METRICS.all()


def check_metrics(names: str | Iterable[str]) -> list[str]:
    """The names in METRICS of these, each once: a list, or text such as `fid,kid`. Labels and
    aliases are names too; case, spaces and punctuation do not count.

    UnknownName, with the nearest, if a metric is unknown; ValueError if something is not text.
    """
    texts = names.split(",") if isinstance(names, str) else names
    texts = list(texts) if isinstance(texts, Iterable) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"metrics must be names such as fid, not {names!r:.80}")
    return list(dict.fromkeys(_name_of(text) for text in texts if text.strip()))


def _name_of(text: str) -> str:
    try:
        return METRICS.find(text).name
    except UnknownName:  # suggest kdiff's names, not other libraries'
        raise UnknownName(unknown_name("metric", text, METRICS)) from None


def needs_logits(metrics: Iterable[str]) -> bool:
    return any(METRICS[name].needs_logits for name in metrics)
