"""The order of convergence on the probability-flow ODE, against its exact solution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from kdiff.certificates.finding import Finding, line
from kdiff.certificates.problems import HUMPS, humps
from kdiff.certificates.runs import Options, as_ode, grid, solve
from kdiff.certificates.tolerances import TIGHT, names, needs_grid, tightened
from kdiff.samplers import Sampler

STEPS = (16, 32, 64, 128, 256)
LATER = (64, 256, 1024)  # alike modulo 3, as `dpm_fast` cares
FINER = (16, 24, 32, 48, 64, 96, 128)  # where most of those are below rounding
BAND = 0.3
ROUNDING = 1e-12  # below it errors are of the arithmetic


def error(sampler: Sampler, options: Options, steps: int) -> float:
    """The mean distance to the exact solution, on a Karras grid from 20 to 0.02."""
    starts, low, high, ends = humps()
    found = solve(sampler, options, grid(steps, low, high), HUMPS, starts).x
    return float((found - ends).abs().mean())


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """Minus the slope of log error over log steps, from 16 steps to 256, as far as errors are above
    rounding; or from 64 to 1024, where the order of some shows later. Samplers that solve no ODE,
    or that choose their own steps, have none."""
    ode = as_ode(sampler, options)
    if ode is None:
        return None
    if sampler.limit is not None:
        if not names(sampler) or not needs_grid(sampler, ode):
            return None
        ode = tightened(sampler, ode, TIGHT)
    declared, usual, later = sampler.order(ode), _slope(sampler, ode, STEPS), None
    if _wrong(usual.order, declared, ode):
        later = _slope(sampler, ode, LATER)
    found = usual if later is None or _wrong(later.order, declared, ode) else later
    said = f"its order is {found.order:.2f} ± {found.error:.2f}, not {declared}"
    return Finding(
        f"{found.order:.2f}",
        {
            "declared": declared,
            "measured": found.order,
            "error": found.error,
            "steps": found.steps,
            "errors": found.errors,
        },
        said if _wrong(found.order, declared, ode) else "",
    )


def _wrong(order: float, declared: float, options: Options) -> bool:
    """Higher is right where the last steps alone have a lower order, with little left to do."""
    higher = order > declared + BAND and not options.get("lower_order_final")
    return higher or order < declared - BAND


class _Slope(NamedTuple):
    order: float
    error: float
    steps: Sequence[int]
    errors: Sequence[float]


def _slope(sampler: Sampler, options: Options, choice: Sequence[int]) -> _Slope:
    """The order over those of the steps, three at least, whose errors are above rounding."""
    errors = {n: error(sampler, options, n) for n in choice}
    kept = list(takewhile(lambda n: errors[n] > ROUNDING, choice))
    if choice is STEPS and len(kept) < 4:
        return _slope(sampler, options, FINER)
    kept = kept if len(kept) >= 3 else list(choice[:3])
    found = line(kept, [errors[n] for n in kept])
    return _Slope(-found.slope, found.error, kept, [errors[n] for n in kept])
