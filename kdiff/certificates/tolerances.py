"""Adaptive samplers: error against tolerance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.problems import HUMPS, humps
from kdiff.certificates.runs import Options, Run, as_ode, grid, solve
from kdiff.samplers import Sampler

NAMES = ("tolerance", "rtol", "atol")  # what their options are called
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
TIGHT = 1e-7  # what errors are measured from
LIMIT = 1_000_000
BAND = 0.35  # below 1: errors must fall with the tolerance
FASTER = 0.5  # above 1: DOP853, of order 8, has 1.43
STEPS = 32  # of the grid, on which most adaptive samplers do not depend
CLOSE = 1e-4  # of the exact solution, at which a sampler is said not to depend on the grid


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """The slope of log error over log tolerance, near 1 for a sampler that keeps its promise, with
    the evaluations that each tolerance takes. The error is the distance to its own result at a
    tolerance of 1e-7; how far that is from the exact solution is a value of its own, or its order
    on the grid."""
    ode = as_ode(sampler, options)
    if ode is None or not names(sampler):
        return None
    limit = run(sampler, ode, TIGHT).x
    runs = [run(sampler, ode, tolerance) for tolerance in TOLERANCES]
    errors = [float((one.x - limit).abs().mean()) for one in runs]
    found = line(TOLERANCES, errors)
    wrong = not -BAND <= found.slope - 1 <= FASTER
    return Finding(
        f"tol^{found.slope:.2f}",
        {
            "measured": found.slope,
            "error": found.error,
            "tolerances": TOLERANCES,
            "errors": errors,
            "nfe": [one.nfe for one in runs],
            "limit": _from_exact(limit),
        },
        f"its error goes with tolerance^{found.slope:.2f}, not tolerance" if wrong else "",
    )


def names(sampler: Sampler) -> list[str]:
    """The options that are tolerances, of an adaptive sampler."""
    return [name for name in NAMES if name in sampler.options and sampler.limit is not None]


def tightened(sampler: Sampler, options: Options, tolerance: float) -> dict[str, Any]:
    """The same options with all tolerances at this one, and no limit in the way."""
    limit = {"limit": LIMIT} if "limit" in sampler.options else {}
    return {**options, **dict.fromkeys(names(sampler), tolerance), **limit}


def run(sampler: Sampler, options: Options, tolerance: float) -> Run:
    starts, low, high, _ = humps()
    given = tightened(sampler, options, tolerance)
    return solve(sampler, given, grid(STEPS, low, high), HUMPS, starts)


def needs_grid(sampler: Sampler, options: Options) -> bool:
    """Whether the grid is what its solution is as good as, though it is adaptive."""
    return _from_exact(run(sampler, options, TIGHT).x) > CLOSE


def _from_exact(x: Tensor) -> float:
    return float((x - humps().ends).abs().mean())
