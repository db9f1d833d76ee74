"""The order of convergence on the probability-flow ODE, against its exact solution."""

from __future__ import annotations

from itertools import takewhile

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.problems import HUMPS, humps
from kdiff.certificates.runs import Options, as_ode, grid, solve
from kdiff.certificates.tolerances import TIGHT, names, needs_grid, tightened
from kdiff.samplers import Sampler

STEPS = (16, 32, 64, 128, 256)
LATER = (64, 128, 256, 512, 1024)  # where errors of 16 steps say little
FINER = (16, 24, 32, 48, 64, 96, 128)  # where most of those are below rounding
BAND = 0.3
LARGE = 0.1  # of data about 0.5 wide
ROUNDING = 1e-12  # below it errors are of the arithmetic


def error(sampler: Sampler, options: Options, steps: int) -> float:
    """The mean distance to the exact solution, on a Karras grid from 20 to 0.02."""
    starts, low, high, ends = humps()
    found = solve(sampler, options, grid(steps, low, high), HUMPS, starts).x
    return float((found - ends).abs().mean())


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of log error over log steps, from 16 steps to 256, or 64 to 1024 if errors are large,
    as far as they are above rounding. Samplers that solve no ODE, or that choose their own steps, have none."""
    ode = as_ode(sampler, options)
    if ode is None:
        return None
    if sampler.limit is not None:
        if not names(sampler) or not needs_grid(sampler, ode):
            return None
        ode = tightened(sampler, ode, TIGHT)
    declared = sampler.order(ode)
    steps, errors = _above_rounding(sampler, ode)
    found = line(steps, errors)
    order = -found.slope
    wrong = order < declared - BAND or (
        # which lowers the order of the last steps alone, where there is little left to do
        order > declared + BAND and not ode.get("lower_order_final")
    )
    return Finding(
        f"{order:.2f}",
        {
            "declared": declared,
            "measured": order,
            "error": found.error,
            "steps": steps,
            "errors": errors,
        },
        f"its order is {order:.2f} ± {found.error:.2f}, not {declared}" if wrong else "",
    )


def _above_rounding(sampler: Sampler, options: Options) -> tuple[list[int], list[float]]:
    """Steps and errors, down to where rounding begins: three at least."""
    usual = LATER if error(sampler, options, STEPS[0]) > LARGE else STEPS
    for choice in (usual, FINER):
        errors = {n: error(sampler, options, n) for n in choice}
        kept = list(takewhile(lambda n: errors[n] > ROUNDING, choice))  # noqa: B023
        if len(kept) >= 4:
            break
    kept = kept if len(kept) >= 3 else list(choice[:3])
    return kept, [errors[n] for n in kept]
