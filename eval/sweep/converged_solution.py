"""The solution of the probability-flow ODE, to which its samplers converge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from kdiff.driver import State
from kdiff.files import whole_file
from kdiff.plans import Plan, plan
from kdiff.samplers.registry import Final
from kdiff.sampling import run

# UniPC with 3 predictions is of order 4. On the packaged model, 128 steps of it end 1.4e-5 from 600
# steps of DPM++ 3M; 20 to 50 steps of the samplers that are judged end 1e-2 to 1e-3 away.
SAMPLER, OPTIONS, STEPS = "unipc", {"order": 3}, 128


@dataclass(frozen=True)
class Course:
    """The course of the ODE: from noise level `sigma_max` to `sigma_min`, and for `zero` on to
    D(x; sigma_min), the step that every sampler ends with."""

    sigma_max: float
    sigma_min: float
    final: Final

    def plan(self, steps: int) -> Plan:
        """The plan of a converging solver with so many steps."""
        return plan(None, SAMPLER, steps=steps, options=OPTIONS, **asdict(self))


def course(model: Any, of: Plan) -> Course:
    """What a plan tries to solve. The course of a plan that ends at zero has the model's own
    sigma_min, whatever the plan's last level above zero is, so that plans on different grids have
    the same target."""
    low = of.sigmas[-1] if of.final == "sigma_min" else model.sigma_min
    return Course(of.sigmas[0], low, of.final)


class Solution(NamedTuple):
    """`x` `[n, *shape]`, float64; `error`, the RMSE between it and what half as many steps give,
    which is well above its own error."""

    x: np.ndarray
    error: float


def solve(
    model: Any,
    course: Course,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    told: Mapping[str, Any] | None = None,
    *,
    batch: int = 64,
    steps: int | None = None,
    callback: Callable[[State], None] | None = None,
) -> Solution:
    """The converged solution from the start of each seed in so many steps (default: STEPS), with
    the solver in float64 (in float32 on an MPS device, which has no more) and the model in its own
    dtype; `told` are conditions beside classes; `callback` gets each `State`. NonFiniteError if the
    model breaks down."""
    watch, steps = callback or (lambda state: None), steps or STEPS
    cond = {"class_labels": labels, **(told or {})}
    fine, coarse = (
        _samples(model, course.plan(n), seeds, cond, batch, watch) for n in (steps, steps // 2)
    )
    return Solution(fine, float(rmse(fine, coarse).mean()))


def _samples(
    model: Any,
    of: Plan,
    seeds: Sequence[int],
    cond: Mapping[str, Any],
    batch: int,
    watch: Callable[[State], None],
) -> np.ndarray:
    device = torch.device(getattr(model, "device", "cpu"))
    dtype = torch.float32 if device.type == "mps" else torch.float64
    runs = run(model, of, seeds, batch=batch, dtype=dtype, cond=cond)
    parts: list[Tensor] = []
    for _, states in runs:
        for state in states:
            watch(state)
        parts.append(state.x.cpu())
    return torch.cat(parts).double().numpy()


def rmse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`[n]`: for each sample the root of the mean square difference over all its numbers, in units
    of data in [-1, 1]."""
    square = (np.asarray(x, dtype=np.float64) - y) ** 2
    return np.sqrt(square.reshape(len(square), -1).mean(axis=1))


def cached(
    folder: Path,
    determines: Mapping[str, Any],
    model: Any,
    course: Course,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    told: Mapping[str, Any] | None = None,
    *,
    batch: int = 64,
    callback: Callable[[State], None] | None = None,
    claim: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> Solution:
    """`solve`, kept in `folder` in a file named by the hash of all that determines it: what the
    arguments say except `told`, and `determines` (the model's hash, its guidance, what it is asked,
    its dtype). Whole or not at
    all; a damaged file is made anew, within `claim` of a name, which other processes wait for."""
    solver = {"sampler": SAMPLER, "options": OPTIONS, "steps": STEPS}
    key = {**determines, **solver, **asdict(course), "seeds": list(seeds), "labels": labels}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    if (known := _read(path)) is not None:
        return known
    with claim(f"converged-{name}"):
        if (known := _read(path)) is not None:  # another process has made it meanwhile
            return known
        solution = solve(model, course, seeds, labels, told, batch=batch, callback=callback)
        folder.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            np.savez(temporary, x=solution.x, error=solution.error)
    return solution


def _read(path: Path) -> Solution | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Solution(file["x"], float(file["error"]))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return None
