"""Evaluation: features, statistics, metrics, references, sweeps and reports."""

from kdiff.eval.evaluation import METRICS, Collector, Figure, evaluate
from kdiff.eval.features import FeatureNetwork, Features, feature_network
from kdiff.eval.metrics import Metric
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.references import Reference, find_reference, make_reference
from kdiff.eval.statistics import Statistic
from kdiff.eval.statistics.moments import Moments

__all__ = [
    "METRICS",
    "Collector",
    "FeatureNetwork",
    "Features",
    "Figure",
    "Gaussian",
    "Metric",
    "Moments",
    "Reference",
    "Statistic",
    "evaluate",
    "feature_network",
    "find_reference",
    "frechet_distance",
    "make_reference",
]
