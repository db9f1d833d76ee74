"""One run of a sampler on an exact model, as short as can be: thousands are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdiff.driver import TooManyEvaluations
from kdiff.model import Denoise
from kdiff.noise import Noise
from kdiff.samplers import Sampler, Walk
from kdiff.schedules import schedule

Options = Mapping[str, Any]


class Run(NamedTuple):
    """`x`, and the evaluations that it took: of the sample that took the most."""

    x: Tensor
    nfe: int


def solve(
    sampler: Sampler,
    options: Options,
    sigmas: Sequence[float],
    model: Denoise,
    x: Tensor,
    *,
    kind: str | None = None,
    seed: int = 0,
) -> Run:
    """From `x` `[1, N]`. The noise is of the sampler's own kind, unless `kind` says otherwise. A
    sampler of students is answered by the `end` of an exact model. TooManyEvaluations beyond an
    adaptive sampler's limit."""
    answer = getattr(model, "end", model) if sampler.student else model
    source = Noise([seed], x.shape[1:], x.dtype)
    noise = getattr(source, kind or sampler.noise or "white")
    walk = Walk(sampler.start(x, sigmas, noise, options))
    counts = np.zeros(len(x), dtype=np.int64)
    limit = options.get("limit", sampler.limit)
    while (ask := walk.ask) is not None:
        np.add.at(counts, list(range(len(x)) if ask.rows is None else ask.rows), 1)
        if sampler.limit is not None and counts.max() > limit:
            raise TooManyEvaluations(f"{sampler.name} has not ended after {limit} evaluations")
        with torch.set_grad_enabled(ask.graph):
            walk.answer(answer(ask.x, ask.sigma))
    return Run(walk.result.detach(), int(counts.max()))


def grid(steps: int, low: float, high: float, final: Any = "sigma_min") -> list[float]:
    """A Karras grid."""
    return schedule("karras", steps, sigma_min=low, sigma_max=high, final=final)


def as_ode(sampler: Sampler, options: Options) -> dict[str, Any] | None:
    """All options, with those at which it draws no noise; None if there are none."""
    if sampler.ode is None:
        return None
    return sampler.with_defaults({**options, **sampler.ode})


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
