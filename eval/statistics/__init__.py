"""The statistics by name.

Of judged images: "pool" and "spatial" (moments of four groups), "rows", "is", "is-openai",
"is-guided-diffusion". Of references: "gaussian", "spatial_gaussian", "rows".
"""

from __future__ import annotations

from functools import partial

from kdiff.eval.statistics.all_rows import AllRows
from kdiff.eval.statistics.contract import Part, Statistic, Sums
from kdiff.eval.statistics.gaussian import Gaussian
from kdiff.eval.statistics.grouped_moments import GroupedMoments
from kdiff.eval.statistics.inception_score_sums import CONVENTIONS, InceptionScoreSums
from kdiff.eval.statistics.moments import Moments
from kdiff.names import Registry

__all__ = ["STATISTICS", "Part", "Statistic", "Sums", "find_statistic"]

STATISTICS: Registry[Statistic] = Registry("statistic", "kdiff.statistics")


def find_statistic(named: str | Statistic) -> Statistic:
    """The statistic of that name, or itself. UnknownName if there is none."""
    return named if isinstance(named, Statistic) else STATISTICS.find(named).thing


def _add(statistic: Statistic) -> None:
    STATISTICS[statistic.name] = statistic


def _moments(n: int, dim: int) -> Moments:
    return Moments(dim)


def _grouped_moments(n: int, dim: int) -> GroupedMoments:
    return GroupedMoments(dim)


_add(Statistic("pool", "pool", _grouped_moments))
_add(Statistic("spatial", "spatial", _grouped_moments))
for _convention in CONVENTIONS:
    _name = "is" if _convention == "torch-fidelity" else f"is-{_convention}"
    _add(Statistic(_name, "logits", partial(InceptionScoreSums, convention=_convention)))
_add(
    Statistic(
        "gaussian",
        "pool",
        _moments,
        finish=Gaussian.of,
        prefix="",
        load=Gaussian.load,
        missing="has no mean and covariance",
    )
)
_add(
    Statistic(
        "spatial_gaussian",
        "spatial",
        _moments,
        finish=Gaussian.of,
        prefix="spatial_",
        load=Gaussian.load,
        missing="has no spatial statistics, which sFID needs: make one with "
        "`kdiff ref make --spatial`",
    )
)
_add(
    Statistic(
        "rows",
        "pool",
        AllRows,
        finish=lambda kept: kept.rows,
        missing="has a mean and a covariance only; KID, precision, recall, density and coverage "
        "need its images: give them as --ref",
    )
)
