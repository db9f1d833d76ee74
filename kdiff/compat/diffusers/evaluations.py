"""The evaluations of a plan, as a pipeline counts them: one for each entry of `timesteps`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from kdiff.plans import Plan
from kdiff.samplers.outline import step_of


class LiveTimesteps(Tensor):
    """Timesteps of an adaptive sampler, each written in place when the sampler asks for it. A loop
    over them, or over a slice of them, sees what is written, and ends at the first NaN."""

    def __iter__(self) -> Iterator[Tensor]:
        for timestep in self.as_subclass(Tensor).unbind(0):
            if timestep.isnan():
                return
            yield timestep

    def __deepcopy__(self, memo: Any) -> LiveTimesteps:
        return self.clone().as_subclass(LiveTimesteps)


def evaluation_levels(plan: Plan) -> list[float]:
    """The noise level of each evaluation. If the sampler is adaptive: as many levels as it may
    evaluate, the grid's own and then the last of these again, until it says others."""
    if plan.levels is not None:
        return list(plan.levels)
    assert plan.limit is not None
    levels = list(plan.sigmas[:-1])
    return [*levels, *levels[-1:] * (plan.limit - len(levels))][: plan.limit]


def beginnings(plan: Plan) -> dict[int, int]:
    """The evaluations that begin a step, and the step of each."""
    steps = _steps(plan)
    return {0: 0} | {i: steps[i] for i in range(1, len(steps)) if steps[i] != steps[i - 1]}


def calls_in_step(plan: Plan) -> int:
    """The evaluations in most steps."""
    if plan.sampler.count is None and plan.sampler.limit is None and not plan.edits:
        return plan.sampler.calls
    each = Counter(_steps(plan)).values()
    return Counter(each).most_common(1)[0][0]


def _steps(plan: Plan) -> list[int]:
    if plan.levels is None or plan.outline is None:
        return list(range(len(evaluation_levels(plan))))[: plan.steps]
    if list(plan.levels) == list(plan.outline.levels):
        return list(plan.outline.steps)
    return [step_of(plan.sigmas, sigma) for sigma in plan.levels]
