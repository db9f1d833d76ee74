"""One cell of a sweep: everything that determines its result, and the key made of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kdiff.eval.evaluation import METRICS
from kdiff.eval.features import FeatureNetwork
from kdiff.eval.references import Reference
from kdiff.files import to_json
from kdiff.modifications import Modification
from kdiff.plans import Plan
from kdiff.text import Request

RMSE = "rmse"  # to the converged solution; unlike METRICS it needs no feature network


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, its file and the file's hash; what guides it, the first one innermost; and
    for a model of prompts what it is asked."""

    name: str
    path: Path
    sha256: str
    guides: tuple[Modification, ...] = ()
    text: Request | None = None

    def guidance(self) -> dict[str, Any]:
        """For records: nothing if there is none."""
        return {"guidance": [one.record() for one in self.guides]} if self.guides else {}

    def asked(self) -> dict[str, Any]:
        """For records: nothing if it takes no prompts."""
        return {"text": self.text.record()} if self.text else {}


@dataclass(frozen=True)
class Judge:
    """What to measure of images, by the names of METRICS or RMSE. If a metric looks at features:
    through which network, and against which reference."""

    metrics: tuple[str, ...]
    network: FeatureNetwork | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Cell:
    """A model, a plan, seeds, and what is to be measured, by the names of METRICS or RMSE.

    `nfe`: how often the network is evaluated for each image, None if only the run will tell.
    `class_labels`: how images come to their class (`kdiff.eval.images.from_model.every_class`).
    """

    model: ModelSpec
    plan: Plan
    nfe: int | None
    seeds: range
    class_labels: str | None
    dtype: str
    deterministic: bool
    metrics: tuple[str, ...]
    network: FeatureNetwork | None = None
    reference: Reference | None = None

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics that look at features."""
        return tuple(name for name in self.metrics if name != RMSE)

    @cached_property
    def images(self) -> str:
        """The key of what determines the images. Cells with an equal one differ in their judges."""
        return replace(self, metrics=(), network=None, reference=None).key

    def labels(self) -> list[str]:
        """What the metrics are called in results."""
        named = self.network.label if self.network is not None else str
        return [named(METRICS[n].label) if n != RMSE else "RMSE" for n in self.metrics]

    @cached_property
    def record(self) -> dict[str, Any]:
        """All of it as plain values, as it stands in results."""
        asks = {} if self.plan.nfe == self.nfe else {"asks": self.plan.nfe}
        return {
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            **self.model.guidance(),
            **self.model.asked(),
            **self.plan.record(),
            "nfe": self.nfe,
            **asks,
            "seeds": {"first": self.seeds.start, "n": len(self.seeds)},
            "class_labels": self.class_labels,
            "dtype": self.dtype,
            "deterministic": self.deterministic,
            "metrics": self.labels(),
            "features": self.network.record() if self.network and self.judged else None,
            "reference": self.reference.record() if self.reference and self.judged else None,
        }

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that change with anything in the record."""
        canonical = to_json(self.record, indent=None, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        steps, nfe = f"{self.plan.steps} steps", "adaptive" if self.nfe is None else self.nfe
        return ", ".join([self.row, self.plan.schedule, steps, f"NFE {nfe}"])

    @property
    def row(self) -> str:
        """The sampler, with the options that are not the default, guidance and edits."""
        known, options = self.plan.sampler.options, self.plan.options.items()
        other = [f"{key}={value}" for key, value in options if value != known[key].default]
        other += map(str, [*self.model.guides, *self.plan.edits])
        return f"{self.plan.sampler.name} ({', '.join(other)})" if other else self.plan.sampler.name
