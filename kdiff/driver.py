"""The driver: what answers a sampler's asks. It counts and watches; samplers do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdiff.noise import Noise
from kdiff.planning import Plan

Denoise = Callable[..., Tensor]


class NonFiniteError(ArithmeticError):
    """The denoiser answered with infinities or NaN."""


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
            if not isinstance(denoised, Tensor) or denoised.shape != x.shape:
                given = tuple(getattr(denoised, "shape", ())) or type(denoised).__name__
                raise ValueError(f"the model must answer with {tuple(x.shape)}, not {given}")
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
        """Raise NonFiniteError for the first answer that was not finite."""
        for finite, step, sigma in self.verdicts:
            if not finite:
                raise NonFiniteError(
                    f"the model's output is not finite in step {step + 1} of {self.plan.steps} "
                    f"({self.plan.sampler.name}), at sigma = {sigma:g}"
                )
        self.verdicts.clear()
