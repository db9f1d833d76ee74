"""A plan: which sampler, with which options, on which grid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdiff.editing import EDITS, edited_levels, guiding
from kdiff.guidance import guided, suited
from kdiff.modifications import Modification, all_chosen
from kdiff.samplers import Sampler, UnknownName, resolve
from kdiff.samplers.outline import Outline, outline
from kdiff.samplers.registry import Final
from kdiff.schedules import FINALS, check_sigmas
from kdiff.schedules import schedule as make_schedule

DEFAULT_SAMPLER, DEFAULT_STEPS, DEFAULT_SCHEDULE = "dpmpp_2m", 20, "karras"


@dataclass(frozen=True)
class Plan:
    """Which sampler with which options on which grid, and what edits its course (see
    `kdiff.editing`): all that `sample` needs beside the model. The grid of an inversion rises."""

    sampler: Sampler
    options: Mapping[str, Any]
    sigmas: Sequence[float]
    schedule: str
    edits: Sequence[Modification] = ()

    @property
    def final(self) -> Final:
        """Where the grid ends."""
        return "zero" if self.sigmas[-1] == 0 else "sigma_min"

    @property
    def steps(self) -> int:
        """The number of intervals of the grid."""
        return len(self.sigmas) - 1

    @property
    def limit(self) -> int | None:
        """The most evaluations of an adaptive sampler: its option `limit`, if it has one."""
        limit = self.sampler.limit
        return limit if limit is None else self.options.get("limit", limit)

    @cached_property
    def outline(self) -> Outline | None:
        """What the sampler will ask and draw, without edits; None if it is adaptive."""
        return outline(self.sampler, self.sigmas, self.options)

    @cached_property
    def levels(self) -> Sequence[float] | None:
        """The noise level of each evaluation, in order; None if only the run will tell."""
        return edited_levels(self)

    @property
    def nfe(self) -> int | None:
        """The number of evaluations of the denoiser, exactly; None if only the run will tell."""
        return None if self.levels is None else len(self.levels)

    def record(self) -> dict[str, Any]:
        """All of it as plain values, for results to carry."""
        edits = {"edits": [edit.record() for edit in self.edits]} if self.edits else {}
        return {
            "sampler": self.sampler.name,
            "options": dict(self.options),
            "schedule": self.schedule,
            "final": self.final,
            "steps": self.steps,
            "nfe": self.nfe,
            "sigmas": list(self.sigmas),
            **edits,
        }


def plan(
    model: Any = None,
    sampler: str = DEFAULT_SAMPLER,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    schedule: str | None = None,
    sigmas: Sequence[float] | None = None,
    final: Final = "zero",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    options: Mapping[str, Any] | None = None,
    edits: str | Modification | Sequence[str | Modification] = (),
    upward: bool = False,
    **settings: Any,
) -> Plan:
    """Resolve names and build the grid.

    `sampler`: any name that `kdiff.samplers.resolve` knows. Either `steps` (default 20), or `nfe`:
    the most steps that this many evaluations of the network pay for (where `model` is guided, an
    answer may take several), or `sigmas`: the grid itself. `schedule`
    (default karras, or what the sampler's name says, as in `DPM++ 2M Karras`), its range, `final`
    and `settings` (rho ..) as in `kdiff.schedule`; `options` are the sampler's. `edits` are of
    `kdiff.editing`: one, or a list, each a `Modification` or text such as `NAME:key=value`.
    `upward`: the same grid from its end, sigma_min whatever `final` is, up to its start, with the
    sampler as a solver of the ODE: see `kdiff.invert`.
    ValueError on anything wrong.
    """
    found, edited = resolve(sampler), all_chosen(EDITS, edits)
    if upward:
        final = "sigma_min"
        options = {**_ode_settings(found.sampler), **(options or {})}
    options = found.sampler.with_defaults({**found.options, **(options or {})})
    if upward and found.sampler.stochastic(options):
        settings_of = ", ".join(f"{k} = {v}" for k, v in _ode_settings(found.sampler).items())
        raise ValueError(f"{found.sampler.name} runs upward without noise only: {settings_of}")
    for key in settings:
        if key in found.sampler.options:
            raise UnknownName(f"{key} is an option of {found.sampler.name}: give it in options")
    if final not in FINALS:
        raise ValueError(f"final must be zero or sigma_min, not {final!r}")
    if sum(given is not None for given in (steps, nfe, sigmas)) > 1:
        raise ValueError("give only one of steps, nfe and sigmas")
    if sigmas is not None:
        ranged = {"schedule": schedule, "sigma_min": sigma_min, "sigma_max": sigma_max, **settings}
        for key, value in ranged.items():
            if value is not None:
                raise ValueError(f"sigmas are the whole grid: leave out {key}")
        grid = _directed(check_sigmas(sigmas), upward)
        return _suited(model, Plan(found.sampler, options, grid, "given", edited))
    name = next(s for s in (schedule, found.schedule, DEFAULT_SCHEDULE) if s is not None)

    def in_steps(steps: int) -> Plan:
        ends: dict[str, Any] = {"sigma_min": sigma_min, "sigma_max": sigma_max, **settings}
        grid = make_schedule(name, steps, model, final=final, **ends)
        return Plan(found.sampler, options, _directed(grid, upward), name, edited)

    if nfe is not None:
        steps = found.sampler.steps(nfe, final, options)
        if edited or hasattr(model, "evaluations"):
            steps = _paid(nfe, steps, lambda n: _network_nfe(model, in_steps(n)))
    return _suited(model, in_steps(DEFAULT_STEPS if steps is None else steps))


def _ode_settings(sampler: Sampler) -> Mapping[str, Any]:
    """ValueError if there are none."""
    if sampler.ode is None:
        name = sampler.name
        raise ValueError(
            f"{name} always draws noise, so it cannot run upward: try ddim or dpmpp_2m"
        )
    return sampler.ode


def _directed(sigmas: list[float], upward: bool) -> list[float]:
    """ValueError for a grid with a 0 from which to go up: there is no denoised there to ask for."""
    if upward and sigmas[-1] == 0:
        raise ValueError("a run upward starts above 0: leave out the last sigma, 0")
    return sigmas[::-1] if upward else sigmas


def _suited(model: Any, plan: Plan) -> Plan:
    suited(model, plan)
    if model is not None:
        guided(model, guiding(plan.edits))
    return plan


def _network_nfe(model: Any, plan: Plan) -> int:
    """The evaluations of the network. ValueError if only the run will tell."""
    if plan.levels is None:
        raise ValueError("the number of evaluations is not known before the run: give steps")
    each = getattr(model, "evaluations", None)
    return len(plan.levels) if each is None else sum(map(each, plan.levels))


def _paid(nfe: int, steps: int, cost: Callable[[int], int]) -> int:
    """The most steps, up to `steps`, whose `cost` is at most `nfe`. ValueError if not even one."""
    if cost(steps) <= nfe:
        return steps
    paid = bisect_right(range(1, steps + 1), nfe, key=cost)
    if not paid:
        raise ValueError(f"nfe = {nfe} does not pay for one step: it takes {cost(1)} here")
    return paid
