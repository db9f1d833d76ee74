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
    """The denoiser answered with infinities or NaN, or a sampler made them of its answers."""


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
    the result. Two drives never share state, and `denoise` may write into what it is given or
    answered. Gradients are not followed.

    ValueError if `x` is not floating-point, or the answers or the noise are not of its shape;
    NonFiniteError, which names the step and sigma, if the model breaks down.
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating-point dtype, not {x.dtype}")
    x, denoise = x.detach(), isolated(denoise)
    asks = plan.sampler.start(x, plan.sigmas, _source(plan, x, noise), plan.options)
    calls = plan.sampler.calls_per_step(plan.steps, plan.final)
    watch = FiniteWatch(plan)
    nfe = 0
    denoised: Any = None  # a coroutine starts on None
    for step, n in enumerate(calls):
        for _ in range(n):
            try:
                x, sigma = asks.send(denoised)
            except StopIteration:
                raise RuntimeError(
                    f"{plan.sampler.name} asks less often than it declares"
                ) from None
            denoised = denoise(x, sigma, **cond)
            nfe += 1
            watch(denoised, step, sigma)
            yield State(step, sigma, x, denoised, nfe)
    try:
        asks.send(denoised)
    except StopIteration as stop:
        watch.result(stop.value)
        yield State(plan.steps, plan.sigmas[-1], stop.value, denoised, nfe)
    else:
        raise RuntimeError(f"{plan.sampler.name} asks more often than it declares")


def _source(plan: Plan, x: Tensor, noise: Noise) -> Callable[[float, float], Tensor] | None:
    """What the sampler draws from: a row for each of `x`, or else rows would be spread over it."""
    if plan.sampler.noise is None:
        return None
    draw = getattr(noise, plan.sampler.noise)

    def checked(s: float, t: float) -> Tensor:
        drawn = draw(s, t)
        if drawn.shape != x.shape:
            raise ValueError(f"the noise is {tuple(drawn.shape)}, and x {tuple(x.shape)}")
        return drawn

    return checked


class Isolated:
    """A denoiser that sees a copy of x, and whose answer is copied: samplers keep both, and
    networks write into what they are given, or answer into one buffer (as compiled ones do with
    CUDA graphs). ValueError if the answer is not a tensor like x."""

    def __init__(self, denoise: Denoise):
        self.denoise = denoise

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        with torch.no_grad():
            answer = self.denoise(x.clone(), sigma, **cond)
        if not isinstance(answer, Tensor) or answer.shape != x.shape:
            given = tuple(getattr(answer, "shape", ())) or type(answer).__name__
            raise ValueError(f"the model must answer with {tuple(x.shape)}, not {given}")
        return answer.to(x.dtype, copy=True)


def isolated(denoise: Denoise) -> Denoise:
    """`denoise`, `Isolated` unless it is that already."""
    return denoise if isinstance(denoise, Isolated) else Isolated(denoise)


class FiniteWatch:
    """Notices non-finite answers. On the CPU at once; on a GPU the verdicts stay there until the
    end, since reading one would make the host wait for every step."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.verdicts: list[tuple[Tensor, str]] = []

    def __call__(self, denoised: Tensor, step: int, sigma: float) -> None:
        where = f"in step {step + 1} of {self.plan.steps} ({self.plan.sampler.name})"
        message = f"the model's output is not finite {where}, at sigma = {sigma:g}"
        self.verdicts.append((denoised.isfinite().all(), message))
        if denoised.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise NonFiniteError for the first that was not finite."""
        for finite, message in self.verdicts:
            if not finite:
                raise NonFiniteError(message)
        self.verdicts.clear()

    def result(self, x: Tensor) -> None:
        """The same for all answers, and then for the sample made of them."""
        name, dtype = self.plan.sampler.name, str(x.dtype).removeprefix("torch.")
        message = f"{name} left the range of {dtype}, though the model's output was finite"
        self.verdicts.append((x.isfinite().all(), message))
        self.check()
