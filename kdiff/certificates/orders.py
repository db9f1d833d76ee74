"""The order of convergence on the probability-flow ODE, against its exact solution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.problems import HUMPS, Late, humps, numbers
from kdiff.certificates.runs import Options, as_ode, grid, solve
from kdiff.certificates.tolerances import TIGHT, names, needs_grid, tightened
from kdiff.samplers import Sampler

STEPS = (16, 32, 64, 128, 256)
FINER = (16, 24, 32, 48, 64, 96, 128)  # where most of those are below rounding
BAND = 0.3
ROUNDING = 1e-12  # below it errors are of the arithmetic
FURTHER = (64, 256, 1024)  # for orders that show later; alike modulo 3, as `dpm_fast` cares
LATE_STEPS = (192, 256, 384)
LOWEST_LATE, HIGHEST = 3, 6  # orders


def error(sampler: Sampler, options: Options, steps: int) -> float:
    """The mean distance to the exact solution, on a Karras grid from 20 to 0.02."""
    starts, low, high, ends = humps()
    found = solve(sampler, options, grid(steps, low, high), HUMPS, starts).x
    return float((found - ends).abs().mean())


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of log error over log steps, from 16 steps to 256, as far as errors are above
    rounding; up to 1024, if the order shows only there. Where the first steps of a method of order
    3 or more are what is seen there, from a start that leaves no error in them. Samplers that solve
    no ODE, that claim no order, or that choose their own steps, have none; nor have orders above 6,
    between whose stability and rounding nothing is left."""
    ode = as_ode(sampler, options)
    declared = None if ode is None else sampler.order(ode)
    if ode is None or declared is None or declared > HIGHEST:
        return None
    if sampler.limit is not None:
        if not names(sampler) or not needs_grid(sampler, ode):
            return None
        ode = tightened(sampler, ode, TIGHT)
    found = _measured(sampler, ode, declared)
    unsure = found.failure or found.values["error"] > BAND
    if unsure and declared >= LOWEST_LATE and sampler.limit is None:
        late = (_measured_late(sampler, ode, declared, unit) for unit in (False, True))
        found = next((one for one in late if not one.failure), found)
    elif found.failure and sampler.limit is None:
        further = _measured(sampler, ode, declared, FURTHER)
        found = found if further.failure else further
    return found


def _measured(
    sampler: Sampler, options: Options, declared: int, choice: Sequence[int] = STEPS
) -> Finding:
    steps, errors = _above_rounding(sampler, options, choice)
    # It lowers the order of the last steps alone, where there is little left to do.
    return _finding(declared, steps, errors, at_least=bool(options.get("lower_order_final")))


def _measured_late(sampler: Sampler, options: Options, declared: int, unit: bool) -> Finding:
    """From the change when steps are halved: see `Late`."""
    start = 20 * numbers([[-1.2, -0.4, 0.5, 1.1]])
    counts = sorted({*LATE_STEPS, *(2 * n for n in LATE_STEPS)})
    ends = {n: solve(sampler, options, grid(n, 0.1, 20.0), Late(unit), start).x for n in counts}
    changes = [float((ends[2 * n] - ends[n]).abs().mean()) for n in LATE_STEPS]
    return _finding(declared, LATE_STEPS, changes)


def _finding(
    declared: int, steps: Sequence[int], errors: Sequence[float], at_least: bool = False
) -> Finding:
    found = line(steps, errors)
    order = -found.slope
    wrong = order < declared - BAND or (order > declared + BAND and not at_least)
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


def _above_rounding(
    sampler: Sampler, options: Options, first: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Steps and errors, down to where rounding begins: three at least."""
    for choice in (first, FINER):
        errors = {n: error(sampler, options, n) for n in choice}
        kept = list(takewhile(lambda n: errors[n] > ROUNDING, choice))  # noqa: B023
        if len(kept) >= min(4, len(choice)):
            break
    kept = kept if len(kept) >= 3 else list(choice[:3])
    return kept, [errors[n] for n in kept]
