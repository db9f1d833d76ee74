"""The driver: what answers a sampler's asks. It counts and watches; samplers do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdiff.conditions import STEP, VARIANCE, WANTED, Conditions, Step, chosen
from kdiff.counts import finite_number, whole_number
from kdiff.editing import begin
from kdiff.guidance import suited
from kdiff.model import Denoise, Wrapper, as_model
from kdiff.noise import Noise
from kdiff.plans import Plan
from kdiff.samplers.contract import Ask
from kdiff.samplers.outline import step_of


class NonFiniteError(ArithmeticError):
    """The denoiser answered with infinities or NaN, or a sampler made them of its answers."""


class TooManyEvaluations(ArithmeticError):
    """An adaptive sampler has not ended within its limit."""


@dataclass(frozen=True)
class State:
    """One answer: at noise level `sigma`, in step `step` (from 0), `x` was denoised to `denoised`.
    Each sample has had up to `asks` answers, which took `nfe` evaluations of the network, in
    `rounds` of answers that could all be computed at the same time. The last
    state holds the result as `x`, at the last sigma, with `step` the number of steps, the last
    `denoised` again, and `each` sample's evaluations, of which `nfe` is the most."""

    step: int
    sigma: float
    x: Tensor
    denoised: Tensor
    nfe: int
    asks: int = 0
    each: Sequence[int] = ()
    rounds: int = 0


def drive(
    denoise: Denoise, plan: Plan, x: Tensor, noise: Noise, *, grad: bool = False, **cond: Any
) -> Iterator[State]:
    """Run the plan from `x` (at noise level plan.sigmas[0]); yield each answer, then the result.
    Two drives never share state, and `denoise` may write into what it is given or answered.

    `cond` is as `kdiff.conditions` has it. Gradients are not followed unless `grad`: the result can
    then be differentiated through the whole run.
    ValueError if `x` is not floating-point, or asks, answers, noise or the result are not of its
    shape; TypeError if the sampler yields anything but asks; NonFiniteError, which names the step
    and sigma, if the model breaks down; TooManyEvaluations if an adaptive sampler does not end.
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating-point dtype, not {x.dtype}")
    denoise = isolated(denoise)
    suited(denoise, plan)
    walk = begin(plan, x if grad else x.detach(), Checked(noise, x), graph=grad)
    count, watch = Count(plan, len(x)), FiniteWatch(plan)
    denoised = x
    while (ask := walk.ask) is not None:
        check_ask(plan, ask, x)
        count.another(ask, denoise.evaluations(ask.sigma))
        step = count.step(ask)
        told = asked_cond(cond, ask)
        if getattr(denoise, "knows_step", False):
            told[STEP] = Step(step, plan.sigmas[step], plan.sigmas[step + 1])
        if ask.variance is not None:
            _check_has_variance(denoise)
            told[VARIANCE] = WANTED
        with torch.set_grad_enabled(grad or ask.graph):
            answer = denoise(ask.x, ask.sigma, **told)
        watch(answer, step, ask.sigma)
        if ask.variance is not None:
            answer, variance = answer.unbind(1)
            ask.variance.fill(variance if grad or ask.graph else variance.detach())
        asked, denoised = (ask.x, answer) if grad else (ask.x.detach(), answer.detach())
        known = (step, ask.sigma, asked, denoised, count.nfe, count.asks)
        yield State(*known, rounds=walk.rounds)
        walk.answer(answer)
    check_like(f"{plan.sampler.name} must return", walk.result, x.shape)
    result = walk.result if grad else walk.result.detach()
    watch.result(result)
    last = (plan.steps, plan.sigmas[-1], result, denoised, count.nfe, count.asks)
    yield State(*last, each=count.each(), rounds=walk.rounds)


def asked_cond(cond: Conditions, ask: Ask) -> dict[str, Any]:
    """The conditions of an ask: the run's own, for its rows, and what the ask itself says."""
    mine = dict(cond) if ask.rows is None else chosen(cond, ask.rows)
    return ask.cond(mine) if callable(ask.cond) else {**mine, **(ask.cond or {})}


def check_ask(plan: Plan, ask: Ask, x: Tensor) -> None:
    """ValueError, or TypeError, unless it asks about samples like those of `x` at a noise level."""
    n = len(x) if ask.rows is None else len(_checked_rows(plan, ask.rows, len(x)))
    check_like(f"{plan.sampler.name} must ask about", ask.x, (n, *x.shape[1:]))
    if finite_number(f"the noise level that {plan.sampler.name} asks at", ask.sigma) < 0:
        raise ValueError(f"{plan.sampler.name} asks at a noise level below 0, {ask.sigma}")


def _checked_rows(plan: Plan, rows: Any, n: int) -> Sequence[int]:
    if not hasattr(rows, "__len__"):
        raise TypeError(f"{plan.sampler.name} must say rows as a list, not {rows!r:.80}")
    for row in rows:
        whole_number(f"a row that {plan.sampler.name} asks about", row, 0, n - 1)
    return rows


def _check_has_variance(denoise: Isolated) -> None:
    """ValueError if the model says, or it is known, that it has none."""
    if getattr(denoise, "learned_variance", False) is False:
        name = denoise.record()["name"]
        raise ValueError(f"{name} has no learned variance: choose another variance")


def check_like(what: str, found: Any, shape: Sequence[int]) -> None:
    """TypeError unless a tensor, ValueError unless of this `shape` and floating-point."""
    if not isinstance(found, Tensor):
        raise TypeError(f"{what} a tensor {tuple(shape)}, not {type(found).__name__}")
    if found.shape != torch.Size(shape):
        raise ValueError(f"{what} a tensor {tuple(shape)}, not {tuple(found.shape)}")
    if not found.is_floating_point():
        raise ValueError(f"{what} a tensor of a floating-point dtype, not {found.dtype}")


class Count:
    """How many answers each of `n` samples has had, and evaluations of the network."""

    def __init__(self, plan: Plan, n: int):
        self.plan = plan
        self.asks = self.nfe = 0
        self._each = np.zeros((2, n), dtype=np.int64)  # answers and evaluations of each sample

    def another(self, ask: Ask, evaluations: int) -> None:
        """TooManyEvaluations beyond the limit of an adaptive sampler."""
        if ask.rows is None:
            self._each += [[1], [evaluations]]
        else:  # which may have a sample several times
            np.add.at(self._each.T, list(ask.rows), [1, evaluations])
        self.asks, self.nfe = self._each.max(axis=1).tolist()
        limit = self.plan.limit
        if limit is not None and self.asks > limit:
            name = self.plan.sampler.name
            raise TooManyEvaluations(
                f"{name} has not ended after {limit} evaluations, at sigma = {ask.sigma:g}: allow "
                "it more, or larger errors"
            )

    def each(self) -> list[int]:
        """The evaluations of each sample."""
        return self._each[1].tolist()

    def step(self, ask: Ask) -> int:
        """The interval of the grid that the newest ask belongs to."""
        if self.plan.edits:  # they may begin the sampler on parts of the grid
            return step_of(self.plan.sigmas, ask.sigma)
        if ask.step is not None:
            name = f"the step that {self.plan.sampler.name} asks in"
            return whole_number(name, ask.step, 0, self.plan.steps - 1)
        known = self.plan.outline
        if known is not None and self.asks <= len(known.steps):
            return known.steps[self.asks - 1]
        return step_of(self.plan.sigmas, ask.sigma)


class Checked:
    """Noise with a row for each of `x`, or else rows would be spread over it. ValueError if it is
    of another shape."""

    def __init__(self, noise: Any, x: Tensor):
        self.noise, self.shape = noise, x.shape

    def white(self, s: float, t: float, draw: int = 0, *, stream: str = "") -> Tensor:
        return self._checked(self.noise.white(s, t, **_more(draw, stream)))

    def brownian(self, s: float, t: float, draw: int = 0, *, stream: str = "") -> Tensor:
        return self._checked(self.noise.brownian(s, t, **_more(draw, stream)))

    def _checked(self, drawn: Tensor) -> Tensor:
        if drawn.shape != self.shape:
            raise ValueError(f"the noise is {tuple(drawn.shape)}, and x {tuple(self.shape)}")
        return drawn


def _more(draw: int, stream: str) -> dict[str, Any]:
    """What a plain draw does not say: sources of noise from elsewhere take (s, t) alone."""
    return {**({"draw": draw} if draw else {}), **({"stream": stream} if stream else {})}


class Isolated(Wrapper):
    """A denoiser that sees a copy of x, and whose answer is copied: samplers keep both, and
    networks write into what they are given, or answer into one buffer (as compiled ones do with
    CUDA graphs). ValueError if the answer is not a tensor like x, or of two like x where the
    learned variance is wanted too."""

    def __init__(self, denoise: Denoise):
        super().__init__(as_model(denoise))

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        answer = self.model(x.clone(), sigma, **cond)
        wanted = (len(x), 2, *x.shape[1:]) if VARIANCE in cond else tuple(x.shape)
        if not isinstance(answer, Tensor) or answer.shape != wanted:
            given = tuple(getattr(answer, "shape", ())) or type(answer).__name__
            raise ValueError(f"the model must answer with {wanted}, not {given}")
        return answer.to(x.dtype, copy=True)


def isolated(denoise: Denoise) -> Isolated:
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
        self.verdicts.append((denoised.detach().isfinite().all(), message))
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
        self.verdicts.append((x.detach().isfinite().all(), message))
        self.check()
