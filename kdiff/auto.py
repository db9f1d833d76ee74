"""`--sampler auto`: what a measurement on a packaged model found best for a number of evaluations.

`assets/auto.json` is that measurement, made by `tools/measure_auto.py`: for each budget the
sampler, its options, the schedule, the ending and the first answer. A budget that was not measured
takes the next lower one's choice, and spends all its own evaluations.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdiff.counts import MOST_STEPS, whole_number
from kdiff.files import read_json
from kdiff.model_data import First, gaussian_of
from kdiff.samplers.registry import Final

if TYPE_CHECKING:
    from kdiff.plans import Plan

AUTO = "auto"
MEASURED = Path(__file__).parent / "assets" / "auto.json"


@dataclass(frozen=True)
class Choice:
    """The best at `budget` evaluations of all that were measured; `figures` are its own."""

    budget: int
    sampler: str
    options: Mapping[str, Any]
    schedule: str
    final: Final
    first: First | None
    figures: Mapping[str, float]

    def settings(self, model: Any) -> dict[str, Any]:
        """For `kdiff.plan`. The first answer is left to the network where the model does not say
        what its data are."""
        chosen = {"options": self.options, "schedule": self.schedule, "final": self.final}
        return {**chosen, "first": self.first if gaussian_of(model) is not None else None}


def is_auto(sampler: Any) -> bool:
    return isinstance(sampler, str) and sampler.strip().lower() == AUTO


@cache
def measured() -> dict[str, Any]:
    """What the file has: `model`, `judged`, `command` and `budgets`."""
    return read_json(MEASURED)


def choice(budget: int) -> Choice:
    """For so many evaluations, or steps. Below the lowest that was measured, that one. ValueError
    unless it is a whole number from 1 on."""
    budget = whole_number("the number of evaluations", budget, 1, MOST_STEPS)
    known = sorted(map(int, measured()["budgets"]))
    taken = known[max(bisect_right(known, budget) - 1, 0)]
    return Choice(taken, **measured()["budgets"][str(taken)])


def told(plan: Plan, model: Any) -> str:
    """One line: what was chosen for the plan, and from which measurement."""
    about = measured()
    options = {
        key: value
        for key, value in plan.options.items()
        if value != plan.sampler.options[key].default
    }
    shown = ", ".join(f"{key}={value}" for key, value in options.items())
    words = [
        plan.sampler.name + (f" ({shown})" if shown else ""),
        f"{plan.steps} steps",
        plan.schedule,
        f"final {plan.final}",
        *(["first analytic"] if plan.first else []),
    ]
    another = "" if _is_measured(model) and not plan.edits else ", which this model is not"
    return (
        f"auto: {', '.join(words)}: the best of {about['candidates']} by {about['judged']} on the "
        f"packaged {about['model']} model{another}"
    )


def _is_measured(model: Any) -> bool:
    """Whether nothing guides the model, and it has the measured one's name, or none."""
    guided = getattr(model, "guides", ()) or hasattr(model, "modification")
    return not guided and getattr(model, "name", AUTO) in (AUTO, measured()["model"])
