"""The grid that `set_timesteps` makes: by a schedule, from timesteps or sigmas, or a flow's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdiff.checkpoints.diffusers_scheduler import FLOW_END, dynamic_shift, is_flow
from kdiff.compat.diffusers.config import (
    SPACINGS,
    precond_for,
    training_times,
    without_lowest_snr,
)
from kdiff.compat.diffusers.edm import edm_level, edm_schedule, is_edm
from kdiff.counts import whole_number
from kdiff.plans import DEFAULT_STEPS, Plan
from kdiff.plans import plan as make_plan
from kdiff.preconditioners import Precond
from kdiff.samplers import resolve
from kdiff.samplers.registry import Final
from kdiff.schedules import find
from kdiff.schedules.continuous import beta, exponential, karras

_Config = Mapping[str, Any]


class Grid(NamedTuple):
    """A plan, and what the network is told at levels where that is given, not computed."""

    plan: Plan
    times: Mapping[float, float]


def make_grid(
    config: _Config,
    steps: int | None = None,
    timesteps: Iterable[Any] | None = None,
    sigmas: Iterable[Any] | None = None,
    mu: float | None = None,
) -> Grid:
    """The grid of `steps` steps; or through the network's own `timesteps`; or through `sigmas`.

    With betas, `sigmas` are the whole grid with its end. For a flow they are times in (0, 1], which
    are shifted like the scheduler's own, and 0 is added; `timesteps` beside them are what the
    network is told. `mu` is needed, and used, if the shift depends on the size.
    ValueError on anything wrong.
    """
    flow = is_flow(config)
    if flow and config.get("use_dynamic_shifting") and mu is None:
        raise ValueError("use_dynamic_shifting needs mu, which depends on the image's size")
    times, numbers = _numbers("timesteps", timesteps), _numbers("sigmas", sigmas)
    if times and numbers and (not flow or len(times) != len(numbers)):
        raise ValueError("give only one of timesteps and sigmas (for flows, or as many of both)")
    if times or numbers:
        grid = _flow_grid(config, mu, times, numbers) if flow else _given(config, times, numbers)
        if steps is not None and steps != grid.plan.steps:
            raise ValueError(f"num_inference_steps is {steps}, and {grid.plan.steps} are given")
        return grid
    steps = whole_number("num_inference_steps", DEFAULT_STEPS if steps is None else steps, 1)
    if flow and not chosen_schedule(config) and not config["settings"]:
        to_zero = _final(config) == "zero"
        own = _even_times(config, steps + (not to_zero))
        return _flow_grid(config, mu, [], own, to_zero)
    return Grid(_scheduled(config, precond_for(config, mu), steps), {})


def chosen_schedule(config: _Config) -> str | None:
    """The schedule that was asked for, in itself or in the sampler's name."""
    return config.get("schedule") or resolve(config["sampler"]).schedule


def replaced(config: _Config) -> list[str]:
    """The choices that a given grid replaces."""
    choices = {"schedule": chosen_schedule(config), "final": config["final"]}
    return [key for key, value in {**choices, **(config["settings"] or {})}.items() if value]


def level_at(config: _Config, precond: Precond, time: float) -> float:
    """The sigma at which the network is told `time`; 0 is a flow's data. ValueError if none is."""
    last = training_times(config)
    if is_flow(config):
        u = 1 - time / last if config.get("invert_sigmas") else time / last
        if 0 <= u <= 1:
            return _flow_level(u)
    elif is_edm(config):
        if precond.sigma_min / 2 < (sigma := edm_level(config, time)) < 2 * precond.sigma_max:
            return sigma
    elif precond.sigmas and 0 <= time <= last - 1:
        table = np.log(precond.sigmas)
        return float(np.exp(np.interp(time, np.arange(len(table)), table)))
    raise ValueError(f"{time:g} is not one of the scheduler's timesteps")


def flow_share(config: _Config, sigma: float) -> float:
    """The flow's time, as the network counts it, 0 to 1, at a noise level."""
    u = 1.0 if sigma >= _flow_level(1.0) else sigma / (1 + sigma)
    return 1 - u if config.get("invert_sigmas") else u


def _numbers(name: str, given: Any) -> list[float]:
    try:
        numbers = [] if given is None else [float(value) for value in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers, not {given!r:.80}") from error
    if (given is not None and not numbers) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be one or more finite numbers, not {given!r:.80}")
    return numbers


def _chosen(config: _Config) -> dict[str, Any]:
    return {"options": config["options"], "edits": config["edits"]}


def _plan(config: _Config, levels: Sequence[float]) -> Plan:
    return make_plan(None, config["sampler"], sigmas=levels, **_chosen(config))


def _given(config: _Config, times: list[float], sigmas: list[float]) -> Grid:
    if sigmas:
        return Grid(_plan(config, sigmas), {})
    precond = precond_for(config)
    levels = [level_at(config, precond, time) for time in times]
    return Grid(_plan(config, [*levels, 0.0]), dict(zip(levels, times, strict=True)))


def _scheduled(config: _Config, precond: Precond, steps: int) -> Plan:
    precond = without_lowest_snr(precond, config.get("lambda_min_clipped"))
    name, settings = chosen_schedule(config), dict(config["settings"] or {})
    name = name or next((SPACINGS[key] for key in SPACINGS if config.get(key)), None)
    if name is None and is_edm(config):
        name, own = edm_schedule(config)
        settings = own | settings
    final = _final(config)
    if name is None or not find(name).thing.discrete:
        for end in ("sigma_min", "sigma_max"):
            if config.get(end) is not None:
                settings.setdefault(end, config[end])
    elif find(name).name == "leading" and config.get("steps_offset"):
        settings.setdefault("steps_offset", config["steps_offset"])
    return make_plan(
        precond,
        config["sampler"],
        steps=steps,
        schedule=name,
        final=final,
        **_chosen(config),
        **settings,
    )


def _final(config: _Config) -> Final:
    return config["final"] or config.get("final_sigmas_type", "zero")


def _even_times(config: _Config, steps: int) -> list[float]:
    """A flow's own times before the shift. diffusers' solvers for both betas and flows leave out
    the last of steps + 1; the others shift the last one twice."""
    last = 1 / training_times(config)
    if "flow_shift" in config:
        return np.linspace(1, last, steps + 1)[:-1].tolist()
    if not config.get("use_dynamic_shifting"):
        last = _shifted(config, None, np.array(last)).item()
    return np.linspace(1, last, steps).tolist()


def _flow_grid(
    config: _Config,
    mu: float | None,
    times: list[float],
    sigmas: list[float],
    to_zero: bool = True,
) -> Grid:
    u = np.array(sigmas) if sigmas else np.array(times) / training_times(config)
    if not sigmas and config.get("invert_sigmas"):
        u = 1 - u
    if sigmas and sigmas[-1] == 0:
        u, times = u[:-1], times[:-1]
    if not len(u) or not (u > 0).all() or not (u <= 1).all():
        bounds = "sigmas must be in (0, 1]"
        if not sigmas:
            bounds = f"timesteps must be in (0, {training_times(config)}]"
        raise ValueError(f"a flow's {bounds}")
    if sigmas:
        u = _spread(config, _to_terminal(_shifted(config, mu, u), config.get("shift_terminal")))
    levels = [_flow_level(each) for each in u.tolist()]
    times = times or [flow_share(config, s) * training_times(config) for s in levels]
    plan = _plan(config, [*levels, *[0.0] * to_zero])
    return Grid(plan, dict(zip(levels, times, strict=True)))


def _flow_level(u: float) -> float:
    u = min(u, 1 - FLOW_END)
    return u / (1 - u)


def _shifted(config: _Config, mu: float | None, u: np.ndarray) -> np.ndarray:
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if config.get("use_dynamic_shifting"):
        shift = dynamic_shift(config, mu)
    return shift * u / (1 + (shift - 1) * u)


def _to_terminal(u: np.ndarray, terminal: float | None) -> np.ndarray:
    """Stretched, so that the last of the times before 0 is `terminal`."""
    if not terminal or u[-1] == 1:
        return u
    return 1 - (1 - u) * (1 - terminal) / (1 - u[-1])


def _spread(config: _Config, u: np.ndarray) -> np.ndarray:
    """As many times between the same ends, spaced as the configuration says."""
    kinds = {"karras": karras, "exponential": exponential, "beta": beta}
    for key, kind in SPACINGS.items():
        if config.get(key):
            ends = {"sigma_min": u[-1], "sigma_max": u[0]}
            ends |= {key: config[key] for key in ends if config.get(key) is not None}
            return kinds[kind](len(u), **ends)
    return u
