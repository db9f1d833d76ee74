"""A sampler under way in a pipeline's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdiff.editing import begin
from kdiff.noise import Noise
from kdiff.plans import Plan
from kdiff.preconditioners import Precond
from kdiff.samplers import Ask


class Run:
    """A plan's walk from `x`, at noise level plan.sigmas[0], answered with what the network says of
    a whole batch, and shown in the network's scale, c_in(sigma) x.

    Where the sampler asks about some samples only, the network sees the others as they were last,
    and what it says of them is left out. `noise` is None if the plan draws none; before the first
    evaluation there is none, for the network has seen the start already.
    ValueError if the sampler does not begin by asking about `x` at `level`, or asks for gradients.
    """

    def __init__(
        self,
        plan: Plan,
        x: Tensor,
        level: float,
        noise: Noise | None,
        precond: Precond,
        limited: Callable[[Tensor], Tensor],
    ):
        self._name = " with ".join([plan.sampler.name, *(edit.name for edit in plan.edits)])
        self._precond, self._limited = precond, limited
        source = _Source(x)
        self._walk = begin(plan, x.clone(), source)
        source.noise = noise
        ask = self.ask
        if ask is None or ask.sigma != level or not _close(ask.x, _rows(x, ask)):
            raise ValueError(
                f"{self._name} changes the start before its first evaluation, which is of what the "
                "pipeline starts from: change the pipeline's latents instead"
            )
        self._shown = precond(level).c_in * x
        self._dtype = x.dtype
        self.denoised = x
        self._check(ask)

    @property
    def ask(self) -> Ask | None:
        """What the network is to answer next; None at the end."""
        return self._walk.ask

    def follow(self, sample: Tensor) -> None:
        """Take over what was changed in the sample since it was shown: the tensor that the sampler
        asks about is its state, which it goes on from. ValueError if the shape is another one."""
        ask = self._asked()
        if sample.shape != self._shown.shape:
            was, now = tuple(self._shown.shape), tuple(sample.shape)
            raise ValueError(f"the sample was {was} in the last step, and is {now}")
        same = sample == self._shown.to(self._dtype).to(sample.dtype)
        changed = sample.to(ask.x.dtype) / self._precond(ask.sigma).c_in
        with torch.no_grad():
            ask.x.copy_(torch.where(_rows(same, ask), ask.x, _rows(changed, ask)))

    def answer(self, output: Tensor, dtype: torch.dtype) -> Tensor:
        """Answer with what the network said of the sample, and return what it is to see next, or
        the result, in `dtype`. ValueError if its shape is not the sample's."""
        ask = self._asked()
        c = self._precond(ask.sigma)
        output, *learned = output.to(ask.x.dtype).split(self._shown.shape[1], dim=1)
        if output.shape != self._shown.shape:
            said, of = tuple(output.shape), tuple(self._shown.shape)
            raise ValueError(f"the network said {said} of a {of} sample")
        denoised = self._limited(c.c_skip * ask.x + c.c_out * _rows(output, ask))
        self.denoised = _with_rows(self.denoised, ask, denoised)
        if ask.variance is not None and learned:
            ask.variance.fill(_rows(learned[0], ask))
        self._walk.answer(denoised)
        self._dtype = dtype
        return self._next().to(dtype)

    def _next(self) -> Tensor:
        if self.ask is None:
            return self._walk.result
        self._check(self.ask)
        shown = self._precond(self.ask.sigma).c_in * self.ask.x
        self._shown = _with_rows(self._shown, self.ask, shown)
        return self._shown

    def _asked(self) -> Ask:
        assert self.ask is not None
        return self.ask

    def _check(self, ask: Ask) -> None:
        for needed, what in (
            (ask.graph, "gradients of the network"),
            (ask.cond, "other conditions"),
        ):
            if needed:
                raise ValueError(
                    f"{self._name} needs {what}, and a pipeline has none: use kdiff.sample"
                )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, equal_nan=True)


def _rows(whole: Tensor, ask: Ask) -> Tensor:
    return whole if ask.rows is None else whole[list(ask.rows)]


def _with_rows(whole: Tensor, ask: Ask, part: Tensor) -> Tensor:
    if ask.rows is None:
        return part
    whole = whole.clone()
    whole[list(ask.rows)] = part
    return whole


class _Source:
    """The noise of a run; zeros as long as it has none."""

    def __init__(self, x: Tensor):
        self.noise: Noise | None = None
        self._zeros = torch.zeros_like(x)

    def white(self, *args: Any, **which: Any) -> Tensor:
        return self._zeros if self.noise is None else self.noise.white(*args, **which)

    def brownian(self, *args: Any, **which: Any) -> Tensor:
        return self._zeros if self.noise is None else self.noise.brownian(*args, **which)
