"""A certificate: what a sampler claims, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdiff.certificates import (
    counts,
    errors,
    invariances,
    moments,
    orders,
    parity,
    round_trips,
    sde_orders,
    tolerances,
)
from kdiff.certificates.finding import Finding
from kdiff.certificates.runs import Options
from kdiff.certificates.settings import settings
from kdiff.messages import one_line
from kdiff.samplers import Sampler

# measure(sampler, options): None if it does not apply.
Measure = Callable[[Sampler, Options], Finding | None]

MEASURES: dict[str, Measure] = {
    "order": orders.measure,
    "tolerance": tolerances.measure,
    "strong": sde_orders.strong,
    "weak": sde_orders.weak,
    "moments": moments.measure,
    "nfe": counts.measure,
    "errors": errors.measure,
    "few steps": errors.stability,
    "invariance": invariances.measure,
    "split": invariances.split,
    "round trip": round_trips.measure,
}


@dataclass(frozen=True)
class Certified:
    """One setting: all its options, and what each measure that applies found."""

    label: str
    options: Mapping[str, Any]
    findings: Mapping[str, Finding]

    @property
    def failures(self) -> list[str]:
        return [finding.failure for finding in self.findings.values() if finding.failure]

    def as_dict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "options": dict(self.options),
            "findings": {name: finding.as_dict() for name, finding in self.findings.items()},
        }


@dataclass(frozen=True)
class Certificate:
    """Of one sampler. `settings`: the default first, then those that it names itself; `parity`:
    what it was compared with, as `kdiff.certificates.parity` has it."""

    sampler: str
    paper: str
    settings: Sequence[Certified]
    parity: Sequence[Mapping[str, Any]]

    @property
    def failures(self) -> list[str]:
        """What is wrong, in words, each with its setting; nothing if it passes."""
        return [f"{one.label}: {words}" for one in self.settings for words in one.failures]

    @property
    def passes(self) -> bool:
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """As plain values, figures to four digits."""
        return {
            "sampler": self.sampler,
            "paper": self.paper,
            "passes": self.passes,
            "settings": [one.as_dict() for one in self.settings],
            "parity": [dict(row) for row in self.parity],
        }


def certificate(sampler: Sampler) -> Certificate:
    """Measure `sampler`, which need not be registered. A sampler that raises fails."""
    certified = [
        Certified(one.label, one.options, _findings(sampler, one.options))
        for one in settings(sampler)
    ]
    return Certificate(sampler.name, sampler.paper, certified, parity.rows(sampler.name))


def _findings(sampler: Sampler, options: Options) -> dict[str, Finding]:
    found = {name: _safely(name, measure, sampler, options) for name, measure in MEASURES.items()}
    return {name: finding for name, finding in found.items() if finding is not None}


def _safely(name: str, measure: Measure, sampler: Sampler, options: Options) -> Finding | None:
    try:
        return measure(sampler, options)
    except Exception as error:  # whatever a plug-in's sampler does
        words = f"{name} cannot be measured: {type(error).__name__}: {one_line(error, 200)}"
        return Finding("failed", {}, words)
