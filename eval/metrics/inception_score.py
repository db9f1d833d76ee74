"""The Inception Score, in the three conventions that papers follow."""

from __future__ import annotations

from kdiff.eval.metrics.contract import METRICS, Estimate, Metric
from kdiff.eval.statistics.inception_score_sums import InceptionScoreSums


def inception_score(sums: InceptionScoreSums, reference: None) -> list[Estimate]:
    """exp(E_x KL(p(y|x) || p(y))), the mean over splits (Salimans et al. 2016); see
    `InceptionScoreSums`. Its error is the std over the splits."""
    return [(sums.mean, sums.std)]


METRICS["is"] = Metric(
    label="IS",
    help="Inception Score as torch-fidelity's; error: std over 10 splits",
    stream="is",
    needs="",
    compute=inception_score,
    least=10,
    higher_is_better=True,
    aliases=("inception_score", "isc"),
)
METRICS["is-openai"] = Metric(
    label="IS-openai",
    help="Inception Score in the given order (Salimans et al. 2016); error: std over 10 splits",
    stream="is-openai",
    needs="",
    compute=inception_score,
    least=10,
    higher_is_better=True,
)
METRICS["is-guided-diffusion"] = Metric(
    label="IS-guided-diffusion",
    help="Inception Score over splits of 5,000 (Dhariwal & Nichol 2021); no error",
    stream="is-guided-diffusion",
    needs="",
    compute=inception_score,
    higher_is_better=True,
    aliases=("is-adm",),
)
