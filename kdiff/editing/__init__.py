"""Editing: functions from coroutine to coroutine, which see asks, answers and the run's own noise.

An edit drives the sampler, and is driven like one. It gets the start and the grid of the run, and
`start(x, sigmas, draw=0)`, which begins the sampler at any noise level on any grid, any number of
times. Noise is a pure function of its interval, so whoever goes over one again, and wants other
noise there, numbers the visits with `draw`.

    @edit("clamped", paper="the range of the data")
    def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 1.0):
        walk = start(x, sigmas)
        while walk.asks:
            answers = yield list(walk.asks)
            walk.answer(*(d.clamp(-most, most) for d in answers))
        return walk.result

It holds its state in local variables, so it is right in lockstep. It is right in any batch if it
keeps that state for each sample: an adaptive sampler asks about `ask.rows` of the batch at a time.
`noise` is white and its own: independent of the sampler's, and of other edits'. What it gives to
the sampler, or returns, is cut off from any graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kdiff.guidance.registry import GUIDANCE
from kdiff.modifications import Modification
from kdiff.names import Registry, made_of_functions
from kdiff.options import Option, options_of
from kdiff.samplers.contract import Coroutine, Noise, Walk
from kdiff.samplers.outline import outline

__all__ = ["EDITS", "Edit", "apg", "begin", "edit", "guiding"]

if TYPE_CHECKING:
    from kdiff.plans import Plan

Start = Callable[..., Walk]
OfGrid = Callable[[Sequence[float]], Sequence[float]]  # levels of the evaluations on a grid
# levels(of the sampler as edited so far, the grid, options): those of the edit.
Levels = Callable[[OfGrid, Sequence[float], Mapping[str, Any]], Sequence[float]]


@dataclass(frozen=True)
class Edit:
    """An edit and what it declares.

    `levels`: the noise levels of its evaluations, if they are not the sampler's own. `like`: of an
    edit that guides, the guidance that needs of a model, and of its classes, what the edit needs.
    """

    name: str
    function: Callable[..., Coroutine]
    paper: str
    levels: Levels | None = None
    like: str | None = None
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


EDITS: Registry[Edit] = Registry("edit", "kdiff.editing", made_of_functions(Edit))


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
    return _begin(plan, noise, graph, len(plan.edits), "", x, plan.sigmas)


def _begin(
    plan: Plan,
    noise: Any,
    graph: bool,
    depth: int,
    visit: str,
    x: Any,
    sigmas: Sequence[float],
    draw: int = 0,
) -> Walk:
    """The sampler with the first `depth` edits. `visit` says which repetition it is part of."""
    if draw:
        visit = f"{visit}again {draw} "
    if not graph and getattr(x, "requires_grad", False):
        x = x.detach()
    if len(sigmas) < 2:
        return Walk(_stay(x), graph)
    if depth == 0:
        kind = plan.sampler.noise
        source = None if kind is None else _streamed(getattr(noise, kind), visit)
        return Walk(plan.solver.start(x, sigmas, source, plan.options), graph)
    said = plan.edits[depth - 1]
    own = _streamed(noise.white, f"{visit}edit {depth - 1} {said.name} ")
    start = partial(_begin, plan, noise, graph, depth - 1, visit)
    function = EDITS.find(said.name).thing.function
    return Walk(function(start, x, sigmas, noise=own, **said.options), graph)


def _stay(x: Any) -> Coroutine:
    """What any sampler does on a grid without an interval."""
    yield []
    return x


def _streamed(noise: Noise, name: str) -> Noise:
    """`noise` with all its streams in one of that name; as it is, if the name is empty."""

    def draws(s: float, t: float, draw: int = 0, *, stream: str = "") -> Any:
        return noise(s, t, draw, stream=name + stream)

    return draws if name else noise


def guiding(edits: Iterable[Modification]) -> list[Modification]:
    """Those that guide, each as the guidance that it is like: to check models and classes."""
    found = []
    for said in edits:
        like = EDITS.find(said.name).thing.like
        if like is not None:
            known = GUIDANCE[like].options
            options = {key: value for key, value in said.options.items() if key in known}
            found.append(Modification(like, options))
    return found


def edited_levels(plan: Plan) -> Sequence[float] | None:
    """Those of the plan's evaluations, edits included; None if only the run will tell."""
    if plan.outline is None:
        return None

    def unedited(sigmas: Sequence[float]) -> Sequence[float]:
        found = outline(plan.solver, sigmas, plan.options) if len(sigmas) > 1 else None
        return () if found is None else found.levels

    levels: OfGrid = unedited
    for modification in plan.edits:
        own = EDITS.find(modification.name).thing.levels
        if own is not None:
            levels = _changed(levels, own, modification.options)
    return plan.outline.levels if not plan.edits else levels(plan.sigmas)


def _changed(inner: OfGrid, own: Levels, options: Mapping[str, Any]) -> OfGrid:
    return lambda sigmas: own(inner, sigmas, options)


# They register theirs, with the decorator above.
from kdiff.editing.projected import apg  # noqa: E402
