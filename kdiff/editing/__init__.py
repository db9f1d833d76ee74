"""Editing: functions from coroutine to coroutine, which see asks, answers and the run's own noise.

An edit drives the sampler, and is driven like one. It gets `start`, which begins the sampler at any
noise level on any grid, any number of times, and the start and grid of the run:

    @edit("clamped", paper="the range of the data")
    def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 1.0):
        walk = start(x, sigmas)
        while walk.asks:
            answers = yield list(walk.asks)
            walk.answer(*(d.clamp(-most, most) for d in answers))
        return walk.result

It holds its state in local variables, so it is right in lockstep and in any batch. `noise` is white
and its own: independent of the sampler's, and of other edits'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kdiff.modifications import Modification
from kdiff.names import Registry
from kdiff.options import Option, options_of
from kdiff.samplers.contract import Coroutine, Noise, Walk
from kdiff.samplers.outline import outline

__all__ = ["EDITS", "Edit", "begin", "edit"]

if TYPE_CHECKING:
    from kdiff.plans import Plan

Start = Callable[[Any, Sequence[float]], Walk]
# levels(levels of the sampler on a grid, the grid, options): those of the evaluations.
Levels = Callable[
    [Callable[[Sequence[float]], Sequence[float]], Sequence[float], Mapping[str, Any]],
    Sequence[float],
]


@dataclass(frozen=True)
class Edit:
    """An edit and what it declares. `levels`: the noise levels of its evaluations, if they are not
    the sampler's own."""

    name: str
    function: Callable[..., Coroutine]
    paper: str
    levels: Levels | None = None
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


EDITS: Registry[Edit] = Registry("edit", "kdiff.editing")


def edit(
    name: str, *, paper: str, **declared: Any
) -> Callable[[Callable[..., Coroutine]], Callable[..., Coroutine]]:
    """Register the function below under `name`; its keyword-only arguments become its options."""

    def register(function: Callable[..., Coroutine]) -> Callable[..., Coroutine]:
        options = options_of(function, given={"noise"})
        EDITS[name] = Edit(name, function, paper, options=options, **declared)
        return function

    return register


def begin(plan: Plan, x: Any, noise: Any, *, graph: bool = False) -> Walk:
    """The plan's sampler at `x`, edited: the last edit stands outermost. `noise` has `white` and
    `brownian` (see `kdiff.Noise`). Unless `graph`, no gradient gets through to the sampler."""
    kind = plan.sampler.noise
    source = None if kind is None else getattr(noise, kind)

    def start(x: Any, sigmas: Sequence[float]) -> Walk:
        return Walk(plan.sampler.start(x, sigmas, source, plan.options), graph)

    for i, modification in enumerate(plan.edits):
        own = partial(noise.white, stream=f"edit {i} {modification.name}")
        start = partial(_start, modification, start, own, graph)
    return start(x, plan.sigmas)


def _start(
    modification: Modification,
    start: Start,
    noise: Noise,
    graph: bool,
    x: Any,
    sigmas: Sequence[float],
) -> Walk:
    function = EDITS[modification.name].function
    return Walk(function(start, x, sigmas, noise=noise, **modification.options), graph)


def edited_levels(plan: Plan) -> Sequence[float] | None:
    """Those of the plan's evaluations, edits included; None if only the run will tell."""
    if plan.outline is None:
        return None

    def levels(sigmas: Sequence[float]) -> Sequence[float]:
        found = outline(plan.sampler, sigmas, plan.options)
        return () if found is None else found.levels

    for modification in plan.edits:
        own = EDITS[modification.name].levels
        if own is not None:
            levels = partial(own, levels, options=modification.options)  # type: ignore[call-arg]
    return plan.outline.levels if not plan.edits else levels(plan.sigmas)
