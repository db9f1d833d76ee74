"""A plan: which sampler, with which options, on which grid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdiff.auto import choice, is_auto
from kdiff.counts import MOST_STEPS, whole_number
from kdiff.editing import EDITS, edited_levels, guiding
from kdiff.guidance import guided, suited
from kdiff.model_data import First, first_of, first_record
from kdiff.modifications import Modification, all_chosen
from kdiff.options import Option
from kdiff.samplers import Sampler, UnknownName, resolve
from kdiff.samplers.first import Gaussian, analytic_first
from kdiff.samplers.outline import Outline, outline
from kdiff.samplers.registry import Final
from kdiff.samplers.replay import needs_mean, replaying
from kdiff.schedules import FINALS, check_sigmas
from kdiff.schedules import schedule as make_schedule
from kdiff.tableau_files import PREFIX, TableauFile, by_budget, read_tableau, tableau_path

DEFAULT_SAMPLER, DEFAULT_STEPS, DEFAULT_SCHEDULE = "dpmpp_2m", 20, "karras"
DROWNED = 10  # above so many spreads of the data, what a Gaussian does not say of D is small


@dataclass(frozen=True)
class Plan:
    """Which sampler with which options on which grid, what edits its course (see
    `kdiff.editing`), and what gives its first answer in place of the network, if anything does: all
    that `sample` needs beside the model. The grid of an inversion rises."""

    sampler: Sampler
    options: Mapping[str, Any]
    sigmas: Sequence[float]
    schedule: str
    edits: Sequence[Modification] = ()
    first: Gaussian | None = None
    tableau: Mapping[str, Any] | None = None  # what records say of the file that the sampler is

    @property
    def solver(self) -> Sampler:
        """The sampler as it runs: without its first ask if `first` answers that."""
        if self.first is None:
            return self.sampler
        return analytic_first(self.sampler, self.first, self.sigmas[0])

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
        return outline(self.solver, self.sigmas, self.options)

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
            **({"first": first_record(self.first)} if self.first else {}),
            **({"tableau": dict(self.tableau)} if self.tableau else {}),
        }


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
        chosen = {"schedule": schedule, "sigmas": sigmas, "final": final, "first": first}
        ends = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        said = {**chosen, "options": options or None, **settings}
        if path is None:
            _leave_out("auto chooses the whole plan", said)
            return _automatic(model, steps, nfe, ends, edited)
        own = f"{path} is a tableau, with a grid of its own"
        _leave_out(own, {"steps": steps, **ends, **said})
        return _suited(model, _replayed(model, path, own, nfe, edited))
    found, data = resolve(sampler), first_of(model, first)
    final = "sigma_min" if upward else "zero" if final is None else final
    if upward:
        if first is not None:
            raise ValueError("a run upward begins where the data are: leave out first")
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
            steps = _paid(nfe, steps, lambda n: _network_nfe(model, in_steps(n)))
    return _suited(model, in_steps(DEFAULT_STEPS if steps is None else steps))


def sampler_options(name: str) -> Mapping[str, Option]:
    """The options of what `plan` takes for a sampler: tableaux and `auto` have none."""
    if tableau_path(name) is not None or is_auto(name):
        return {}
    return resolve(name).sampler.options


def _leave_out(why: str, said: Mapping[str, Any]) -> None:
    """ValueError if any of these is given."""
    for key, value in said.items():
        if value is not None:
            raise ValueError(f"{why}: leave out {key}")


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


def _replayed(
    model: Any, path: Path, own: str, nfe: int | None, edited: Sequence[Modification]
) -> Plan:
    """The plan of a tableau, or of the largest in a folder that `nfe` evaluations pay for."""
    if not path.is_dir():
        _leave_out(own, {"nfe": nfe})
        return _replay(model, read_tableau(path), edited)
    files = by_budget(path)
    there = ", ".join(map(str, sorted(files)))
    if nfe is None:
        raise ValueError(
            f"{path} has tableaux for several numbers of evaluations: give nfe, of {there}"
        )
    nfe = whole_number("nfe", nfe, 1, MOST_STEPS)
    for asks, file in files.items():
        found = read_tableau(file)
        if found.tableau.nfe != asks:
            raise ValueError(f"{file} has {found.tableau.nfe} asks, not {asks} as its name says")
        made = _replay(model, found, edited)
        if _network_nfe(model, made) <= nfe:
            return made
    raise ValueError(f"{path} has no tableau that nfe = {nfe} pays for: it has {there}")


def _replay(model: Any, file: TableauFile, edited: Sequence[Modification]) -> Plan:
    record: dict[str, Any] = {"sha256": file.sha256}
    mean = 0.0
    if needs_mean(file.tableau):
        data = first_of(model, "analytic")
        assert data is not None
        mean, record["mean"] = data.mean, first_record(data)["mean"]
    sampler = replaying(
        f"{PREFIX}{file.name}",
        file.tableau,
        file.sigmas,
        noise=file.noise,
        mean=mean,
        paper=f"a tableau of {(file.source or {}).get('sampler', 'unknown origin')!s:.80}",
    )
    return Plan(sampler, {}, file.sigmas, "tableau", edited, tableau=record)


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
