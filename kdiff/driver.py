"""The drivers: what answers a sampler's asks. They count, watch and batch; samplers do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdiff.noise import Noise
from kdiff.samplers import Sampler, resolve
from kdiff.samplers.registry import Final
from kdiff.schedules import check_sigmas
from kdiff.schedules import schedule as make_schedule

DEFAULT_SAMPLER, DEFAULT_STEPS, DEFAULT_SCHEDULE = "dpmpp_2m", 20, "karras"
FIXED_BATCH = 16  # the one batch shape of `deterministic`

Denoise = Callable[..., Tensor]


class NonFiniteError(ArithmeticError):
    """The denoiser answered with infinities or NaN."""


@dataclass(frozen=True)
class Plan:
    """Which sampler with which options on which grid: all that `sample` needs beside the model."""

    sampler: Sampler
    options: Mapping[str, Any]
    sigmas: Sequence[float]
    schedule: str

    @property
    def final(self) -> Final:
        return "zero" if self.sigmas[-1] == 0 else "sigma_min"

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def nfe(self) -> int:
        return self.sampler.nfe(self.steps, self.final)

    def record(self) -> dict[str, Any]:
        """All of it as plain values, for results to carry."""
        return {
            "sampler": self.sampler.name,
            "options": dict(self.options),
            "schedule": self.schedule,
            "final": self.final,
            "steps": self.steps,
            "nfe": self.nfe,
            "sigmas": list(self.sigmas),
        }


def plan(
    model: Any = None,
    sampler: str = DEFAULT_SAMPLER,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    schedule: str | None = None,
    sigmas: Sequence[float] | None = None,
    final: Final = "zero",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Plan:
    """Resolve names and build the grid.

    `sampler`: any name that `kdiff.samplers.resolve` knows. Either `steps` (default 20), or `nfe`:
    the most steps that this many evaluations pay for, or `sigmas`: the grid itself. `schedule`
    (default karras, or what the sampler's name says, as in `DPM++ 2M Karras`), its range, `final`
    and `settings` (rho ..) as in `kdiff.schedule`; `options` are the sampler's.
    ValueError on anything wrong.
    """
    found = resolve(sampler)
    options = found.sampler.with_defaults({**found.options, **(options or {})})
    if sum(given is not None for given in (steps, nfe, sigmas)) > 1:
        raise ValueError("give only one of steps, nfe and sigmas")
    if sigmas is not None:
        ranged = {"schedule": schedule, "sigma_min": sigma_min, "sigma_max": sigma_max, **settings}
        for key, value in ranged.items():
            if value is not None:
                raise ValueError(f"sigmas are the whole grid: leave out {key}")
        return Plan(found.sampler, options, check_sigmas(sigmas), "given")
    if nfe is not None:
        steps = found.sampler.steps(nfe, final)
    name = schedule or found.schedule or DEFAULT_SCHEDULE
    grid = make_schedule(
        name,
        DEFAULT_STEPS if steps is None else steps,
        model,
        final=final,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        **settings,
    )
    return Plan(found.sampler, options, grid, name)


@dataclass(frozen=True)
class State:
    """One evaluation: at noise level `sigma`, in step `step` (from 0), `x` was denoised to
    `denoised`; `nfe` evaluations have been made. The last state holds the result as `x`, at the
    last sigma, with `step` the number of steps and the last `denoised` again."""

    step: int
    sigma: float
    x: Tensor
    denoised: Tensor
    nfe: int


def drive(denoise: Denoise, plan: Plan, x: Tensor, noise: Noise, **cond: Any) -> Iterator[State]:
    """Run the plan's sampler from `x` (at noise level plan.sigmas[0]); yield each evaluation, then
    the result. Two drives never share state. NonFiniteError names the step and sigma."""
    kind = plan.sampler.noise
    source = getattr(noise, kind) if kind else None
    asks = plan.sampler.start(x, plan.sigmas, source, plan.options)
    calls = plan.sampler.calls_per_step(plan.steps, plan.final)
    watch = FiniteWatch(plan)
    nfe = 0
    denoised: Any = None  # a coroutine starts on None
    for step, n in enumerate(calls):
        for _ in range(n):
            x, sigma = asks.send(denoised)
            with torch.no_grad():
                denoised = denoise(x, sigma, **cond)
            nfe += 1
            watch(denoised, step, sigma)
            yield State(step, sigma, x, denoised, nfe)
    try:
        asks.send(denoised)
    except StopIteration as stop:
        watch.check()
        yield State(plan.steps, plan.sigmas[-1], stop.value, denoised, nfe)
    else:
        raise RuntimeError(f"{plan.sampler.name} asks more often than it declares")


class FiniteWatch:
    """Notices non-finite answers. On the CPU at once; on a GPU the verdicts stay there until the
    end, since reading one would make the host wait for every step."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.verdicts: list[tuple[Tensor, int, float]] = []

    def __call__(self, denoised: Tensor, step: int, sigma: float) -> None:
        self.verdicts.append((denoised.isfinite().all(), step, sigma))
        if denoised.device.type == "cpu":
            self.check()

    def check(self) -> None:
        for finite, step, sigma in self.verdicts:
            if not finite:
                raise NonFiniteError(
                    f"the model's output is not finite in step {step + 1} of {self.plan.steps} "
                    f"({self.plan.sampler.name}), at sigma = {sigma:g}"
                )
        self.verdicts.clear()


def sample(
    model: Any,
    sampler: str = DEFAULT_SAMPLER,
    *,
    n: int | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    batch: int = 64,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    callback: Callable[[State], None] | None = None,
    cond: Mapping[str, Any] | None = None,
    class_labels: Sequence[int] | Tensor | None = None,
    **planned: Any,
) -> Tensor:
    """`n` samples `[n, *model.shape]` from `model`, a `Denoiser` or any callable like one.

    Seeds are `seeds`, or `seed`, `seed` + 1, .. (`n` of them, default 1): each determines its
    sample, whatever `batch` it is computed in (to the network's rounding; to the bit if
    `deterministic`, which gives the network one fixed batch shape). `dtype` is the solver's; the
    network keeps its own. `class_labels` and every value in `cond` have one row a sample.
    `callback` gets each `State`. All else (`steps`, `nfe`, `schedule`, `options`, ..) as in `plan`.
    ValueError on bad arguments, NonFiniteError if the model breaks down.
    """
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    seeds = range(seed, seed + (n or 1)) if seeds is None else list(seeds)
    if n is not None and n != len(seeds):
        raise ValueError(f"n = {n}, but there are {len(seeds)} seeds")
    cond = {**(cond or {}), "class_labels": class_labels}
    what = plan(model, sampler, **planned)
    results = []
    for _, states in run(
        model,
        what,
        seeds,
        batch=batch,
        shape=shape,
        dtype=dtype,
        deterministic=deterministic,
        cond=cond,
    ):
        for state in states:
            if callback is not None:
                callback(state)
        results.append(state.x)
    return torch.cat(results)


def run(
    model: Any,
    plan: Plan,
    seeds: Sequence[int],
    *,
    batch: int = 64,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    cond: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Sequence[int], Iterator[State]]]:
    """What `sample` does, batch by batch: the seeds of each, and its states to iterate over."""
    if len(seeds) < 1:
        raise ValueError("nothing to sample: give at least one image or seed")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    device = getattr(model, "device", "cpu")
    shape = getattr(model, "shape", None) if shape is None else shape
    if shape is None:
        raise ValueError("the model does not say its shape: give shape")
    rows = _rows(cond or {}, len(seeds), device)
    denoise = fixed_batch(model) if deterministic else model
    for start in range(0, len(seeds), batch):
        part = slice(start, start + batch)
        noise = Noise(seeds[part], shape, dtype, device)
        x = plan.sigmas[0] * noise.initial()
        states = drive(denoise, plan, x, noise, **{k: v[part] for k, v in rows.items()})
        yield seeds[part], states


def _rows(cond: Mapping[str, Any], n: int, device) -> dict[str, Tensor]:
    rows = {k: torch.as_tensor(v, device=device) for k, v in cond.items() if v is not None}
    for key, value in rows.items():
        if value.ndim == 0 or len(value) != n:
            raise ValueError(f"{key} must have one row for each of the {n} samples")
    return rows


def fixed_batch(denoise: Denoise, size: int = FIXED_BATCH) -> Denoise:
    """`denoise` in calls of exactly `size` samples, the last one padded with copies. A network's
    rounding depends on the shape of its batch; so with one shape, no sample depends on which
    others, or how many, are computed with it."""

    def padded(rows: Tensor, start: int) -> Tensor:
        part = rows[start : start + size]
        return torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])

    def wrapped(x: Tensor, sigma: float, **cond: Tensor) -> Tensor:
        parts = [
            denoise(padded(x, i), sigma, **{k: padded(v, i) for k, v in cond.items()})
            for i in range(0, len(x), size)
        ]
        return torch.cat(parts)[: len(x)]

    return wrapped
