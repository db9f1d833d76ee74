"""The order of convergence on the probability-flow ODE, against its exact solution."""

from __future__ import annotations

from functools import cache
from itertools import takewhile

import torch
from torch import Tensor

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.problems import HUMPS
from kdiff.certificates.runs import Options, as_ode, grid, solve
from kdiff.samplers import Sampler

SIGMA_MAX, SIGMA_MIN = 20.0, 0.02
STEPS = (16, 32, 64, 128, 256)
BAND = 0.3
ROUNDING = 1e-12  # below it errors are of the arithmetic


@cache
def problem() -> tuple[Tensor, Tensor]:
    """Starts, and where the ODE takes them."""
    starts = torch.linspace(-11, -5, 31, dtype=torch.float64)[None]
    return starts, HUMPS.flow(starts, SIGMA_MAX, SIGMA_MIN)


def error(sampler: Sampler, options: Options, steps: int) -> float:
    """The mean distance to the exact solution, on a Karras grid from 20 to 0.02."""
    starts, ends = problem()
    found = solve(sampler, options, grid(steps, SIGMA_MIN, SIGMA_MAX), HUMPS, starts).x
    return float((found - ends).abs().mean())


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of log error over log steps, from 16 steps to 256, as far as errors are above
    rounding. Adaptive samplers, and those that solve no ODE, have none."""
    ode = as_ode(sampler, options)
    declared = None if ode is None or sampler.limit is not None else sampler.order(ode)
    if ode is None or declared is None:
        return None
    errors = {n: error(sampler, ode, n) for n in STEPS}
    kept = list(takewhile(lambda n: errors[n] > ROUNDING, STEPS))
    found = line(kept, [errors[n] for n in kept])
    wrong = declared - BAND > -found.slope or (
        # which lowers the order of the last steps alone, where there is little left to do
        -found.slope > declared + BAND and not ode.get("lower_order_final")
    )
    return Finding(
        f"{-found.slope:.2f}",
        {
            "declared": declared,
            "measured": -found.slope,
            "error": found.error,
            "steps": kept,
            "errors": [errors[n] for n in kept],
        },
        f"its order is {-found.slope:.2f} ± {found.error:.2f}, not {declared}" if wrong else "",
    )
