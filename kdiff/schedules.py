"""Noise schedules: decreasing lists of sigmas, Python floats, built in float64."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any, get_args

import numpy as np

from kdiff.counts import MOST_STEPS, real_number, whole_number
from kdiff.names import Registry, UnknownName, left_out
from kdiff.samplers.registry import Final
from kdiff.samplers.vp import BETA_D, BETA_MIN, vp_sigma, vp_time

# Beyond these, squares leave float32, and Brownian paths have no octaves.
SMALLEST_SIGMA, LARGEST_SIGMA = 1e-18, 1e18
FINALS: tuple[Final, ...] = get_args(Final)


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """sigma^(1 / rho) is linear (Karras et al. 2022, eq. 5)."""
    return np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n) ** rho


def exponential(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """ln sigma is linear: even in log SNR (Lu et al. 2022, DPM-Solver)."""
    return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), n))


def polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> np.ndarray:
    """ln sigma = ln sigma_min + u^rho ln(sigma_max / sigma_min), u from 1 to 0 (k-diffusion)."""
    return sigma_min * np.exp(np.linspace(1, 0, n) ** rho * math.log(sigma_max / sigma_min))


def vp(
    n: int, sigma_min: float, sigma_max: float, beta_d: float = BETA_D, beta_min: float = BETA_MIN
) -> np.ndarray:
    """The time of the VP SDE is linear (Song et al. 2021; Karras et al. 2022, table 1)."""
    first, last = vp_time(sigma_max, beta_d, beta_min), vp_time(sigma_min, beta_d, beta_min)
    return vp_sigma(np.linspace(first, last, n), beta_d, beta_min)


def linspace(n: int, steps: int) -> np.ndarray:
    """Timesteps from the last to the first, evenly, unrounded: DDPM's grid."""
    return np.linspace(steps - 1, 0, n)


def leading(n: int, steps: int, steps_offset: int = 0) -> np.ndarray:
    """Every (steps // n)-th timestep from `steps_offset` up: DDIM's and PLMS's own grid."""
    return np.arange(n)[::-1] * (steps // n) + float(steps_offset)


def trailing(n: int, steps: int) -> np.ndarray:
    """Evenly down from the last timestep, not to the first (Lin et al. 2023, table 2)."""
    return np.round(np.arange(steps, 0, -steps / n))[:n] - 1.0


def even(n: int, steps: int) -> np.ndarray:
    """As trailing, but not rounded to whole timesteps: the grid of Flux's pipeline."""
    return np.arange(n, 0, -1) * (steps / n) - 1.0


@dataclass(frozen=True)
class Schedule:
    """A function of (n, sigma_min, sigma_max), which gives `n` sigmas, or for discrete models of
    (n, steps), which gives `n` of the timesteps 0 .. steps - 1. Its other arguments are settings,
    with their defaults."""

    function: Callable[..., np.ndarray]

    def __call__(self, *args: Any, **settings: Any) -> np.ndarray:
        return self.function(*args, **settings)

    @property
    def discrete(self) -> bool:
        return "sigma_min" not in inspect.signature(self.function).parameters

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, such as rho, and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    @property
    def about(self) -> str:
        """What the function's docstring says."""
        return inspect.getdoc(self.function) or ""


def _adopt(registry: Registry[Schedule], name: str, function: Any) -> None:
    if callable(function):
        registry.setdefault(name, Schedule(function))
    elif not isinstance(function, ModuleType):  # which has registered its own
        left_out(registry, name, "a schedule is a function")


SCHEDULES: Registry[Schedule] = Registry("schedule", "kdiff.schedules", _adopt)
for _function in (karras, exponential, polyexponential, vp, linspace, leading, trailing, even):
    SCHEDULES[_function.__name__] = Schedule(_function)


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
    found = SCHEDULES.find(name)
    name, grid_of = found.name, found.thing
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
            points = steps + (final == "sigma_min")
            with np.errstate(invalid="raise", divide="raise", over="raise"):
                grid = grid_of(points, low, high, **numbers)
            if not np.isfinite(grid).all() or not numbers.get("rho", 1) > 0:
                raise ArithmeticError("its sigmas are not finite and decreasing")
            grid[0], grid[-1] = high, (low if len(grid) > 1 else high)  # exactly, not to rounding
        else:
            end = getattr(model, "sigma_end", None)
            high = high if sigma_max is not None or end is None else end
            table = getattr(model, "sigmas", None)
            grid = _discrete(name, steps, table, sigma_min or 0.0, high, final, numbers)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"there is no {name} schedule with {settings}: {error}") from error
    sigmas = [float(s) for s in grid] + [0.0] * (final == "zero")
    return check_sigmas(sigmas)


def _numbers(name: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the types of their defaults. ValueError if one is not such a number;
    UnknownName if the schedule does not have it."""
    for key in settings:
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise UnknownName(f"the {name} schedule has no setting {key!r}; it has {known}")
    return {
        key: whole_number(key, value, 0) if type(defaults[key]) is int else real_number(key, value)
        for key, value in settings.items()
    }


def _discrete(name, steps, table, low, high, final, settings) -> np.ndarray:
    """A grid over the timesteps whose sigmas are from `low` to `high`."""
    if table is None:
        raise ValueError(f"the {name} schedule needs a discrete-time model; try karras")
    points = steps + (final == "sigma_min")
    if points > len(table):
        raise ValueError(f"steps must be at most the model's {len(table)} timesteps, not {steps}")
    first, end = bisect_left(table, low), bisect_right(table, high)
    if end - first < min(2, points):
        raise ValueError(f"the model has too few timesteps from sigma {low:g} to {high:g}")
    if final == "zero":
        t = _timesteps(name, steps, end - first, len(table), settings)
    elif name == "linspace":
        t = linspace(steps + 1, end - first)
    else:  # leading: from timestep 1, so that the last step, to timestep 0, has a size
        settings = {"steps_offset": 1, **settings} if name == "leading" else settings
        t = np.append(_timesteps(name, steps, end - first, len(table), settings), 0.0)
        if t[-2] == 0:
            raise ValueError(f"{name} is at timestep 0 before its last step: take fewer steps")
    logs = np.interp(first + t, np.arange(len(table)), np.log(np.asarray(table)))
    return np.exp(logs)


def _timesteps(name, n, count, of, settings) -> np.ndarray:
    """The timesteps of a grid over `count` timesteps of `of`. Where a grid has more points than
    these, and for leading, which begins lower anyhow, the grid over all of them is squeezed."""
    if name != "leading" and n <= count:
        return SCHEDULES[name](n, count, **settings)
    t = SCHEDULES[name](n, of, **settings)
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
