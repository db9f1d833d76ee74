"""The metrics by name, each in a file of its own."""

# isort: off
# These register their metrics, in the order in which `kdiff list` and results show them.
import kdiff.eval.metrics.fid
import kdiff.eval.metrics.fid_inf
import kdiff.eval.metrics.sfid
import kdiff.eval.metrics.inception_score
import kdiff.eval.metrics.kid
import kdiff.eval.metrics.precision_recall
import kdiff.eval.metrics.density_coverage  # noqa: F401

# isort: on
from kdiff.eval.metrics.contract import (
    METRICS,
    Estimate,
    Metric,
    all_metrics,
    check_metrics,
    needs_logits,
)

__all__ = ["METRICS", "Estimate", "Metric", "all_metrics", "check_metrics", "needs_logits"]
