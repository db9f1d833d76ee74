"""Strong and weak order: how a sampler of an SDE converges on one Brownian path, and how its
moments do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile

from kdiff.certificates import moments
from kdiff.certificates.finding import Finding, line
from kdiff.certificates.gaussians import response
from kdiff.certificates.moments import SIGMA_MAX, SIGMA_MIN
from kdiff.certificates.problems import HUMPS
from kdiff.certificates.runs import Options, grid, rms, solve
from kdiff.samplers import Sampler

STEPS = (128, 256, 512, 1024)
PATHS = 256  # of a sampler that is not linear
BAND = 0.3
ROUNDING = 1e-12


def strong(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of the log change, rms, when the steps are halved, all noises being
    increments of one path over log sigma. Linear samplers on a Gaussian, where it is exact; others
    on two humps, over 256 paths."""
    declared, _ = sampler.sde_orders(options)
    if declared is None or not _stochastic(sampler, options):
        return None
    levels = [grid(n, SIGMA_MIN, SIGMA_MAX) for n in STEPS]
    if sampler.linear:
        found = [response(sampler, options, one) for one in levels]
        changes = [fine.distance(coarse, SIGMA_MAX) for coarse, fine in pairwise(found)]
    else:
        start = HUMPS.quantiles(PATHS, SIGMA_MAX)
        ends = [solve(sampler, options, one, HUMPS, start, kind="brownian").x for one in levels]
        changes = [rms(fine - coarse) for coarse, fine in pairwise(ends)]
    return _finding("strong", declared, STEPS[:-1], changes)


def weak(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of the log error of mean and variance, of linear samplers, of which both are
    exact: there are not enough samples of others to tell."""
    _, declared = sampler.sde_orders(options)
    if declared is None or not sampler.linear or not _stochastic(sampler, options):
        return None
    errors = [max(moments.errors(*moments.moments(sampler, options, n))) for n in STEPS]
    return _finding("weak", declared, STEPS, errors)


def _stochastic(sampler: Sampler, options: Options) -> bool:
    return sampler.stochastic(options) and sampler.limit is None


def _finding(name: str, declared: float, steps: Sequence[int], errors: Sequence[float]) -> Finding:
    kept = list(takewhile(lambda pair: pair[1] > ROUNDING, zip(steps, errors, strict=True)))
    if len(kept) < 3:
        return Finding("exact", {"declared": declared})
    found = line(*zip(*kept, strict=True))
    wrong = abs(-found.slope - declared) > BAND
    return Finding(
        f"{-found.slope:.2f}",
        {
            "declared": declared,
            "measured": -found.slope,
            "error": found.error,
            "steps": steps[: len(kept)],
            "errors": errors[: len(kept)],
        },
        f"its {name} order is {-found.slope:.2f}, not {declared:g}" if wrong else "",
    )
