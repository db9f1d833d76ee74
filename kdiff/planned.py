"""A plan: which sampler, with which options, on which grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdiff.editing import edited_levels
from kdiff.model_data import first_record
from kdiff.modifications import Modification
from kdiff.samplers import Sampler
from kdiff.samplers.first import Gaussian, analytic_first
from kdiff.samplers.outline import Outline, outline
from kdiff.samplers.registry import Final


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


def network_nfe(model: Any, plan: Plan) -> int:
    """The evaluations of the network. ValueError if only the run will tell."""
    if plan.levels is None:
        raise ValueError("the number of evaluations is not known before the run: give steps")
    each = getattr(model, "evaluations", None)
    return len(plan.levels) if each is None else sum(map(each, plan.levels))
