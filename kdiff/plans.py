"""`kdiff.plan`: names to a `Plan`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdiff.auto import choice, is_auto
from kdiff.counts import MOST_STEPS, whole_number
from kdiff.editing import EDITS, guiding
from kdiff.guidance import guided, suited
from kdiff.model_data import First, first_of
from kdiff.modifications import Modification, all_chosen
from kdiff.options import Option
from kdiff.planned import Plan as Plan
from kdiff.planned import network_nfe
from kdiff.samplers import Resolved, Sampler, UnknownName, resolve
from kdiff.samplers.first import Gaussian
from kdiff.samplers.registry import Final
from kdiff.schedules import FINALS, check_sigmas
from kdiff.schedules import schedule as make_schedule
from kdiff.tableau_files import tableau_path
from kdiff.tableau_plans import leave_out, replayed

DEFAULT_SAMPLER, DEFAULT_STEPS, DEFAULT_SCHEDULE = "dpmpp_2m", 20, "karras"
DROWNED = 10  # above so many spreads of the data, what a Gaussian does not say of D is small


def plan(
    model: Any = None,
    sampler: str = DEFAULT_SAMPLER,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    schedule: str | None = None,
    sigmas: Sequence[float] | None = None,
    final: Final | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    options: Mapping[str, Any] | None = None,
    edits: str | Modification | Sequence[str | Modification] = (),
    first: First | None = None,
    upward: bool = False,
    **settings: Any,
) -> Plan:
    """Resolve names and build the grid.

    `sampler`: any name that `kdiff.samplers.resolve` knows; the file of a tableau, which has a
    grid of its own, or a folder of these by NFE (`kdiff.tableau_files`); or `auto`, which chooses
    all that determines a run but the number of its evaluations (`kdiff.auto`). Either `steps`
    (default 20), or `nfe`: the most steps that this many evaluations of the network pay for (where
    `model` is guided, an answer may take several), or `sigmas`: the grid itself. `schedule`
    (default karras, or what the sampler's name says, as in `DPM++ 2M Karras`), its range, `final`
    (default zero) and `settings` (rho ..) as in `kdiff.schedule`; `options` are the sampler's.
    `edits` are of `kdiff.editing`: one, or a list, each a `Modification` or text such as
    `NAME:key=value`. `first="analytic"` makes the first answer of the data's mean and spread (see
    `kdiff.model_data`), without the network, so that it counts as no evaluation.
    `upward`: the same grid from its end, sigma_min whatever `final` is, up to its start, with the
    sampler as a solver of the ODE: see `kdiff.invert`.
    ValueError on anything wrong.
    """
    path, edited = tableau_path(sampler), all_chosen(EDITS, edits)
    if path is not None or is_auto(sampler):
        chosen: dict[str, Any] = {"schedule": schedule, "sigmas": sigmas, "final": final}
        chosen["first"] = first
        if upward:
            raise ValueError("neither auto nor a tableau runs upward: name a sampler, such as ddim")
        ends = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        said = {**chosen, "options": options or None, **settings}
        if path is None:
            leave_out("auto chooses the whole plan", said)
            return _automatic(model, steps, nfe, ends, edited)
        own = f"{path} is a tableau, with a grid of its own"
        leave_out(own, {"steps": steps, **ends, **said})
        return _suited(model, replayed(model, path, own, nfe, edited))
    found, data = resolve(sampler), first_of(model, first)
    if upward:
        leave_out("a run upward begins where the data are", {"first": first})
    options = _options(found, options or {}, settings, upward)
    if final not in (None, *FINALS):
        raise ValueError(f"final must be zero or sigma_min, not {final!r}")
    final = "sigma_min" if upward else "zero" if final is None else final
    if sum(given is not None for given in (steps, nfe, sigmas)) > 1:
        raise ValueError("give only one of steps, nfe and sigmas")
    if sigmas is not None:
        ranged = {"schedule": schedule, "sigma_min": sigma_min, "sigma_max": sigma_max, **settings}
        for key, value in ranged.items():
            if value is not None:
                raise ValueError(f"sigmas are the whole grid: leave out {key}")
        grid = _directed(check_sigmas(sigmas), upward)
        return _suited(model, Plan(found.sampler, options, grid, "given", edited, data))
    name = next(s for s in (schedule, found.schedule, DEFAULT_SCHEDULE) if s is not None)

    def in_steps(steps: int) -> Plan:
        ends: dict[str, Any] = {"sigma_min": sigma_min, "sigma_max": sigma_max, **settings}
        grid = make_schedule(name, steps, model, final=final, **ends)
        return Plan(found.sampler, options, _directed(grid, upward), name, edited, data)

    if nfe is not None:
        paid = nfe
        if data is not None:  # the first answer is free
            paid = 1 + whole_number(f"nfe of {found.sampler.name}", nfe, 1, MOST_STEPS - 1)
        steps = found.sampler.steps(paid, final, options)
        if edited or hasattr(model, "evaluations"):
            steps = _paid(nfe, steps, lambda n: network_nfe(model, in_steps(n)))
    return _suited(model, in_steps(DEFAULT_STEPS if steps is None else steps))


def sampler_options(name: str) -> Mapping[str, Option]:
    """The options of what `plan` takes for a sampler: tableaux and `auto` have none."""
    if tableau_path(name) is not None or is_auto(name):
        return {}
    return resolve(name).sampler.options


def _automatic(
    model: Any,
    steps: int | None,
    nfe: int | None,
    ends: Mapping[str, Any],
    edited: Sequence[Modification],
) -> Plan:
    chosen = choice(next(n for n in (nfe, steps, DEFAULT_STEPS) if n is not None))
    settings = chosen.settings(model)
    return plan(model, chosen.sampler, steps=steps, nfe=nfe, edits=edited, **ends, **settings)


def _options(
    found: Resolved, given: Mapping[str, Any], settings: Mapping[str, Any], upward: bool
) -> dict[str, Any]:
    """All of the sampler's. Upward they are by default those of a solver of the ODE."""
    sampler = found.sampler
    usual = {**found.options, **(_ode_settings(sampler) if upward else {})}
    options = sampler.with_defaults({**usual, **given})
    if upward and sampler.stochastic(options):
        without = ", ".join(f"{key} = {value}" for key, value in _ode_settings(sampler).items())
        raise ValueError(f"{sampler.name} runs upward without noise only: {without}")
    for key in settings:
        if key in sampler.options:
            raise UnknownName(f"{key} is an option of {sampler.name}: give it in options")
    return options


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
    if plan.first is not None:
        _check_first(plan, plan.first)
    if model is not None:
        guided(model, guiding(plan.edits))
    return plan


def _check_first(plan: Plan, data: Gaussian) -> None:
    """ValueError where the first answer cannot be the Gaussian's, or leaves none to the network."""
    least, begins = DROWNED * data.std, plan.sigmas[0]
    if begins < least:
        raise ValueError(
            f"first=analytic is for runs that begin where noise drowns the data, at a sigma of "
            f"{least:g} or more, not {begins:g}: leave it out"
        )
    if plan.nfe == 0:
        raise ValueError("first=analytic answers the only ask of this plan: take more steps")


def _paid(nfe: int, steps: int, cost: Callable[[int], int]) -> int:
    """The most steps, up to `steps`, whose `cost` is at most `nfe`. ValueError if not even one."""
    if cost(steps) <= nfe:
        return steps
    paid = bisect_right(range(1, steps + 1), nfe, key=cost)
    if not paid:
        raise ValueError(f"nfe = {nfe} does not pay for one step: it takes {cost(1)} here")
    return paid
