"""Grids: a schedule over a range of noise levels, with an ending."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from kdiff.counts import MOST_STEPS, real_number, whole_number
from kdiff.names import UnknownName
from kdiff.samplers.registry import Final
from kdiff.schedules.registry import Schedule, find

# Beyond these, squares leave float32, and Brownian paths have no octaves.
SMALLEST_SIGMA, LARGEST_SIGMA = 1e-18, 1e18
FINALS: tuple[Final, ...] = get_args(Final)


@dataclass(frozen=True)
class Range:
    """Where a schedule may go; a `Denoiser` has the same. `sigmas`: a discrete model's table;
    `sigma_end`: where schedules of its timesteps begin, if not at `sigma_max`."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigmas: Sequence[float] | None = None
    sigma_end: float | None = None


def schedule(
    name: str,
    steps: int,
    model: Any = None,
    *,
    final: Final = "zero",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    **settings: Any,
) -> list[float]:
    """`steps` + 1 decreasing sigmas, from sigma_max (leading: from the sigma of its own first
    timestep, which may be lower).

    `final="zero"`: `steps` points down to sigma_min, then 0 (k-diffusion, EDM).
    `final="sigma_min"`: `steps` + 1 points that end at sigma_min (DPM-Solver, diff-sampler).
    Grids of timesteps (linspace, leading, trailing, even) go evenly over the model's timesteps
    whose sigma is not above sigma_max, nor below a sigma_min that is given here.
    A range that is not given is the one of `model` (anything with sigma_min, sigma_max, sigmas). An
    eps model of discrete timesteps begins at a sigma of 160 at most (`kdiff.precond` says why); a
    larger sigma_max, given here or to `kdiff.wrap` or `kdiff.load`, goes up to its table's end.
    ValueError says which argument is wrong; UnknownName if the schedule is.
    """
    found = find(name)
    name, grid_of = found.name, found.thing
    settings = {**found.options, **settings}
    model = Range() if model is None else model
    low = getattr(model, "sigma_min", None) if sigma_min is None else sigma_min
    high = getattr(model, "sigma_max", None) if sigma_max is None else sigma_max
    if low is None or high is None:
        raise ValueError("the model does not say its noise range: give sigma_min and sigma_max")
    low, high = real_number("sigma_min", low), real_number("sigma_max", high)
    steps = whole_number("steps", steps, 1, MOST_STEPS)
    if final not in FINALS:
        raise ValueError(f"final must be zero or sigma_min, not {final!r}")
    if not 0 < low < high < math.inf:
        raise ValueError(f"sigma_min must be above 0 and below sigma_max, not {low:g} and {high:g}")
    check_sigmas([high, low])
    numbers = _numbers(name, settings, grid_of.settings)
    try:
        if not grid_of.discrete:
            grid = _continuous(grid_of, steps, low, high, final, numbers)
        else:
            end = getattr(model, "sigma_end", None)
            high = high if sigma_max is not None or end is None else end
            table = getattr(model, "sigmas", None)
            grid = _discrete(found, steps, table, sigma_min or 0.0, high, final, numbers)
        sigmas = [float(s) for s in grid] + [0.0] * (final == "zero")
        if not all(s > t for s, t in pairwise(sigmas)):
            raise ArithmeticError(f"its sigmas at steps = {steps} are not strictly decreasing")
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"there is no {name} schedule with {settings}: {error}") from error
    return check_sigmas(sigmas)


def _numbers(name: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the types of their defaults. ValueError if one is not such a number;
    UnknownName if the schedule does not have it."""
    for key in settings:
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise UnknownName(f"the {name} schedule has no setting {key!r}; it has {known}")
    return {
        key: _flag(key, value)
        if type(defaults[key]) is bool
        else whole_number(key, value, 0)
        if type(defaults[key]) is int
        else real_number(key, value)
        for key, value in settings.items()
    }


def _flag(key: str, value: Any) -> bool:
    if value not in (True, False):
        raise ValueError(f"{key} must be true or false, not {value!r:.80}")
    return bool(value)


def _continuous(
    grid_of: Schedule, steps: int, low: float, high: float, final: Final, settings: dict[str, Any]
) -> np.ndarray:
    """The sigmas without a last 0. Their ends are exact, not to rounding."""
    flow = settings.pop("flow", grid_of.flow)
    to_end = final == "sigma_min" or grid_of.ending != "sigma_min"
    last = 0.0 if final == "zero" and grid_of.ending == "zero" else low
    ends = (last / (1 + last), high / (1 + high)) if flow else (last, high)
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        grid = grid_of(steps + to_end, *ends, **settings)
        if flow:
            grid = grid / np.maximum(1 - grid, 1e-18)
    positive = all(settings.get(key, 1) > 0 for key in ("rho", "shift"))
    if not np.isfinite(grid).all() or not positive:
        raise ArithmeticError("its sigmas are not finite and decreasing")
    grid[0], grid[-1] = high, (last if len(grid) > 1 else high)
    return grid[:-1] if to_end and final == "zero" else grid


def _discrete(found, steps, table, low, high, final, settings) -> np.ndarray:
    """A grid over the timesteps whose sigmas are from `low` to `high`."""
    name, grid_of = found.name, found.thing
    if table is None:
        raise ValueError(f"the {name} schedule needs a discrete-time model; try karras")
    points = steps + (final == "sigma_min")
    if points > len(table):
        raise ValueError(f"steps must be at most the model's {len(table)} timesteps, not {steps}")
    first, end = bisect_left(table, low), bisect_right(table, high)
    if end - first < min(2, points):
        raise ValueError(f"the model has too few timesteps from sigma {low:g} to {high:g}")
    count = end - first
    if final == "zero":
        t = _timesteps(name, grid_of, steps, count, len(table), settings)
    elif grid_of.ending == "sigma_min":
        t = grid_of(steps + 1, count, **settings)
    else:  # leading: from timestep 1, so that the last step, to timestep 0, has a size
        settings = {"steps_offset": 1, **settings} if name == "leading" else settings
        t = np.append(_timesteps(name, grid_of, steps, count, len(table), settings), 0.0)
        if t[-2] == 0:
            raise ValueError(f"{name} is at timestep 0 before its last step: take fewer steps")
    logs = np.interp(first + t, np.arange(len(table)), np.log(np.asarray(table)))
    return np.exp(logs)


def _timesteps(name, grid_of, n, count, of, settings) -> np.ndarray:
    """The timesteps of a grid over `count` timesteps of `of`. Where a grid has more points than
    these, and for leading, which begins lower anyhow, the grid over all of them is squeezed."""
    if name != "leading" and n <= count:
        return grid_of(n, count, **settings)
    t = grid_of(n, of, **settings)
    return t * min(1.0, (count - 1) / max(t[0], 1.0))


def check_sigmas(sigmas: Sequence[float]) -> list[float]:
    """The same, as floats; ValueError unless at least two, strictly decreasing, from 1e18 down to
    1e-18, with 0 allowed at the end."""
    try:
        result = [real_number("a sigma", s) for s in sigmas]
    except TypeError:
        raise ValueError(f"sigmas must be a list of numbers, not {sigmas!r:.80}") from None
    if len(result) < 2 or not all(a > b for a, b in pairwise(result)) or result[-1] < 0:
        raise ValueError("sigmas must be two or more, strictly decreasing, and end at or above 0")
    if not math.isfinite(result[0]):
        raise ValueError("sigmas must be finite")
    if not all(SMALLEST_SIGMA <= s <= LARGEST_SIGMA for s in result if s > 0):
        raise ValueError(f"sigmas above 0 must be from {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g}")
    return result
