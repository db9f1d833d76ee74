"""One cell of a sweep: everything that determines its result, and the key made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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
    """A model's name, its file and the file's hash; what guides it, the first one innermost, with
    what the guided model's record says of them; and for a model of prompts what it is asked."""

    name: str
    path: Path
    sha256: str
    guides: tuple[Modification, ...] = ()
    recorded: Sequence[Mapping[str, Any]] = ()
    text: Request | None = None

    def guidance(self) -> dict[str, Any]:
        """For records: nothing if there is none."""
        return {"guidance": list(self.recorded)} if self.recorded else {}

    def asked(self) -> dict[str, Any]:
        """For records: nothing if it takes no prompts."""
        return {"text": self.text.record()} if self.text else {}

    def guidance_by_hash(self) -> dict[str, Any]:
        """For keys: a network beside the model is known by its hash, whatever it is called."""
        return {
            key: [{**one, "options": _by_hash(one["options"])} for one in guides]
            for key, guides in self.guidance().items()
        }


def _by_hash(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {k: v for k, v in value.items() if k != "name"}
        if isinstance(value, Mapping) and value.get("sha256")
        else value
        for key, value in options.items()
    }


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
    `negative`: classes that guidance leads away from, which images take in turn.
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
    negative: tuple[int, ...] = ()

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
            **({"negative_class_labels": list(self.negative)} if self.negative else {}),
            "dtype": self.dtype,
            "deterministic": self.deterministic,
            "metrics": self.labels(),
            "features": self.network.record() if self.network and self.judged else None,
            "reference": self.reference.record() if self.reference and self.judged else None,
        }

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that change with anything in the record, but not with the names of
        networks that guide the model."""
        determines = {**self.record, **self.model.guidance_by_hash()}
        canonical = to_json(determines, indent=None, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def away(self, indices: Sequence[int]) -> dict[str, list[int]]:
        """The condition that guidance leads away from, of the images with these numbers; empty if
        there is none."""
        turns = len(self.negative)
        each = [self.negative[i % turns] for i in indices if turns]
        return {"negative_class_labels": each} if each else {}

    def __str__(self) -> str:
        steps, nfe = f"{self.plan.steps} steps", "adaptive" if self.nfe is None else self.nfe
        return ", ".join([self.row, self.plan.schedule, steps, f"NFE {nfe}"])

    @property
    def row(self) -> str:
        """The sampler, with the options that are not the default, guidance and edits."""
        known, options = self.plan.sampler.options, self.plan.options.items()
        other = [f"{key}={value}" for key, value in options if value != known[key].default]
        other += ["final=sigma_min"] if self.plan.final == "sigma_min" else []
        other += ["first=analytic"] if self.plan.first else []
        other += map(str, [*self.model.guides, *self.plan.edits])
        other += [f"away from {','.join(map(str, self.negative))}"] if self.negative else []
        return f"{self.plan.sampler.name} ({', '.join(other)})" if other else self.plan.sampler.name
