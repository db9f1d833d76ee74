"""Many plans on the same seeds at once: what they ask alike is computed once.

Plans that start at the same noise level have their first ask in common; Euler, Heun and DPM++ 2M on
one grid may have the second as well, and so on until their results part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdiff.conditions import Conditions
from kdiff.driver import Isolated, State, drive
from kdiff.guidance import suited
from kdiff.plans import Plan
from kdiff.sampling import Batch, batches


@dataclass(frozen=True)
class Outcome:
    """What one plan made of one batch: samples `x`, or the error that ended it. `seconds` is the
    time that it would have taken alone: that of its own work and of every answer it got, shared
    ones in full. `evaluations`: of the network, for each sample."""

    x: Tensor | None
    error: Exception | None
    seconds: float
    evaluations: Sequence[int]


@dataclass(frozen=True)
class Round:
    """One batch: its seeds, the outcome of each plan, how many answers the plans asked for, and how
    many of them were computed."""

    seeds: Sequence[int]
    outcomes: Sequence[Outcome]
    asked: int
    computed: int


def lockstep(
    model: Any,
    plans: Sequence[Plan],
    seeds: Sequence[int],
    *,
    batch: int = 64,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
    cond: Mapping[str, Any] | None = None,
    callback: Callable[[int, State], None] | None = None,
) -> Iterator[Round]:
    """All plans on all seeds, batch by batch. Each plan gets, to the bit, what `kdiff.sample` with
    the same arguments gives it; `callback` gets each `State` and its plan's index. A plan that
    fails stays failed, and does not stop the others. Errors in the arguments as in `sample`.
    """
    errors: list[Exception | None] = [None] * len(plans)
    for part in batches(model, seeds, batch, shape, dtype, deterministic, cond):
        answers, first = Answers(part.denoise), part.noise()
        starts = {s: part.start(s, first) for s in {plan.sigmas[0] for plan in plans}}
        lanes = [
            Lane(plan, part, starts[plan.sigmas[0]], answers, error)
            for plan, error in zip(plans, errors, strict=True)
        ]
        while any(lane.running for lane in lanes):
            answers.next_round()
            for i, lane in enumerate(lanes):
                state = lane.advance()
                if state is not None and callback is not None:
                    callback(i, state)
        errors = [lane.error for lane in lanes]
        outcomes = [Outcome(lane.x, lane.error, lane.seconds, lane.evaluated) for lane in lanes]
        yield Round(part.seeds, outcomes, answers.asked, answers.computed)


@dataclass(frozen=True)
class Answer:
    """D(x; sigma), what it took to compute, and the answer that came before the question."""

    before: Tensor | None
    x: Tensor
    sigma: float
    cond: Conditions
    denoised: Tensor
    seconds: float


class Answers:
    """The answers of one round of asks, each computed when first asked for.

    Two asks are compared only if the same answer came before both: plans that have parted do not
    meet again. So nearly all comparisons find equality and spare a call of the network, and the
    host, which on a GPU waits for each, does not wait for more.
    """

    def __init__(self, denoise: Isolated):
        self.denoise = denoise
        self.asked = self.computed = 0
        self._known: list[Answer] = []

    def next_round(self) -> None:
        self._known = []

    def find(
        self, before: Tensor | None, x: Tensor, sigma: float, cond: Conditions
    ) -> Answer | None:
        """The answer to an equal ask, if there was one in this round. An ask that is to be
        differentiated has none: a graph leads to one x."""
        self.asked += 1
        for known in [] if torch.is_grad_enabled() else self._known:
            if (
                known.before is before
                and known.sigma == sigma
                and known.cond.keys() == cond.keys()
                and all(known.cond[key] is value for key, value in cond.items())
                and _equal(known.x, x)
            ):
                return known
        return None

    def compute(self, before: Tensor | None, x: Tensor, sigma: float, **cond: Any) -> Answer:
        began = time.perf_counter()
        denoised = self.denoise(x, sigma, **cond)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)  # or it would be someone else's time
        self.computed += 1
        answer = Answer(before, x, sigma, cond, denoised, time.perf_counter() - began)
        self._known.append(answer)
        return answer


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


class Lane:
    """One plan under way: its drive, and the denoiser that the drive sees. `error`: it has failed
    before, and does not start."""

    def __init__(
        self, plan: Plan, part: Batch, start: Tensor, answers: Answers, error: Exception | None
    ):
        self.answers, self.error, self.running = answers, error, error is None
        self.x: Tensor | None = None
        self.seconds = 0.0
        self.evaluated: Sequence[int] = ()
        self._last: Tensor | None = None
        self._states = drive(Isolated(self), plan, start, part.noise(), **part.cond)

    def advance(self) -> State | None:
        """The next state, None if there is none."""
        if not self.running:
            return None
        began = time.perf_counter()
        try:
            state = next(self._states)
        except StopIteration:
            self.running = False
            return None
        except Exception as error:  # whatever is wrong with one plan, the others go on
            self.running, self.x, self.error = False, None, error
            return None
        self.x, self.evaluated = state.x, state.each
        self.seconds += time.perf_counter() - began
        return state

    @property
    def knows_step(self) -> bool:
        return getattr(self.answers.denoise, "knows_step", False)

    @property
    def learned_variance(self) -> bool | None:
        return getattr(self.answers.denoise, "learned_variance", False)

    def check_plan(self, plan: Plan) -> None:
        suited(self.answers.denoise, plan)

    def evaluations(self, sigma: float) -> int:
        return self.answers.denoise.evaluations(sigma)

    def record(self) -> dict[str, Any]:
        return self.answers.denoise.record()

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        known = self.answers.find(self._last, x, sigma, cond)
        if known is None:
            known = self.answers.compute(self._last, x, sigma, **cond)
        else:
            self.seconds += known.seconds
        self._last = known.denoised
        return known.denoised
