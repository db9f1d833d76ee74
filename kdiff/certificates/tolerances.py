"""Adaptive samplers: error against tolerance."""

from __future__ import annotations

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.orders import SIGMA_MAX, SIGMA_MIN, problem
from kdiff.certificates.problems import HUMPS
from kdiff.certificates.runs import Options, as_ode, grid, solve
from kdiff.samplers import Sampler

NAMES = ("tolerance", "rtol", "atol")  # what their options are called
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
LIMIT = 100_000
BAND = 0.35
STEPS = 8  # of the grid, on which adaptive samplers do not depend


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """The slope of log error over log tolerance, near 1 for a sampler that keeps its promise, with
    the evaluations that each tolerance takes."""
    names = [name for name in NAMES if name in sampler.options]
    ode = as_ode(sampler, options)
    if sampler.limit is None or not names or ode is None:
        return None
    starts, ends = problem()
    errors, evaluations = [], []
    for tolerance in TOLERANCES:
        given = {**ode, **dict.fromkeys(names, tolerance)}
        given |= {"limit": LIMIT} if "limit" in sampler.options else {}
        run = solve(sampler, given, grid(STEPS, SIGMA_MIN, SIGMA_MAX), HUMPS, starts)
        errors.append(float((run.x - ends).abs().mean()))
        evaluations.append(run.nfe)
    found = line(TOLERANCES, errors)
    wrong = abs(found.slope - 1) > BAND
    return Finding(
        f"{found.slope:.2f}",
        {
            "measured": found.slope,
            "error": found.error,
            "tolerances": TOLERANCES,
            "errors": errors,
            "nfe": evaluations,
        },
        f"its error goes with tolerance^{found.slope:.2f}, not tolerance" if wrong else "",
    )
