"""From a description of a sweep to its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import torch

from kdiff.auto import is_auto, told
from kdiff.counts import seed_number, whole_number
from kdiff.editing import guiding
from kdiff.eval.images.from_model import MOST_IMAGES, every_class, three_channels
from kdiff.eval.sweep.cell import RMSE, Cell, Judge, ModelSpec
from kdiff.eval.sweep.models import Models
from kdiff.eval.sweep.tally import collector, one_line
from kdiff.guidance.negative import check_leads_away, leads_away, negative_classes
from kdiff.images import to_uint8
from kdiff.latent import check_pictures
from kdiff.model import network_nfe
from kdiff.modifications import Modification
from kdiff.names import unknown_name
from kdiff.plans import Plan, plan, sampler_options
from kdiff.ranges import beginning
from kdiff.samplers import UnknownName

Modifications = tuple[Modification, ...]


def expand(
    specs: Sequence[ModelSpec],
    samplers: Sequence[str],
    *,
    sizes: Sequence[Mapping[str, int]],
    schedules: Sequence[str | None] = (None,),
    ends: Sequence[Mapping[str, Any]] = ({},),
    options: Mapping[str, Sequence[Any]] | None = None,
    guides: Sequence[Modifications] = ((),),
    edits: Sequence[Modifications] = ((),),
    negative: str | None = None,
    n: int,
    first_seeds: Sequence[int] = (0,),
    judges: Sequence[Judge],
    dtype: str = "float32",
    deterministic: bool = False,
    models: Models | None = None,
    warn: Callable[[str], None] = lambda text: None,
    **grid: Any,
) -> list[Cell]:
    """Every combination, each once.

    `sizes` are {"steps": 10} or {"nfe": 10}; `ends` say how grids end and begin, such as
    {"final": "zero", "first": "analytic"}; `options` have one or more values each and apply to
    the samplers that have them. Each of `guides` is a tuple of guidances, the first one innermost,
    and each of `edits` a tuple of edits; an empty tuple is none. `negative` are classes, such as
    `cat,3`, for the guides that lead away from one. Each of the `judges` looks at all images;
    `grid` (sigma_min ..) is for all, as in `kdiff.plan`. `models` has the models that are
    loaded already; `warn` is told of models whose schedules begin below the end of their table.
    ValueError if any combination is impossible or no sampler has one of the options.
    """
    check_seeds(n, first_seeds)
    check_options(samplers, options or {})
    edited = [one for some in edits for one in guiding(some)]
    if negative is not None:
        check_leads_away([[*own, *edited] for own in guides])
    loaded = models or Models()
    cells: dict[str, Cell] = {}
    for spec in specs:
        model = loaded.load(spec)
        check_pictures(model)
        said = beginning(model)
        if said and grid.get("sigma_max") is None:
            warn(f"Note: {spec.name}: {said}")
        for own in guides:
            around = loaded.guided(replace(spec, guides=own))
            asking = [*own, *edited]
            away = negative_classes(around, asking, negative if leads_away(asking) else None)
            made = replace(spec, guides=own, recorded=around.record().get("guidance", ()))
            _, labels = every_class(around, n)
            shared = Shared(made, labels, tuple(away), dtype, deterministic)
            sized = [{**end, **size} for size, end in product(sizes, ends)]
            every = plans(around, samplers, schedules, sized, options or {}, edits, grid, warn)
            costed = [(one, network_nfe(around, one)) for one in every]
            for first, cost, judge in product(first_seeds, costed, judges):
                seeds = range(first, first + n)
                cell = shared.cell(cost, seeds, judge)
                cells.setdefault(cell.key, cell)
    if any(j.metrics for j in judges) and not any(cell.metrics for cell in cells.values()):
        why = "add noise" if edits == ((),) else "add noise, or their course is edited"
        raise ValueError(f"RMSE is to the solution of the ODE, but all these samplers {why}")
    return list(cells.values())


@dataclass(frozen=True)
class Shared:
    """What all cells of one guided model have in common."""

    model: ModelSpec
    class_labels: str | None
    negative: tuple[int, ...]
    dtype: str
    deterministic: bool

    def cell(self, cost: tuple[Plan, int | None], seeds: range, judge: Judge) -> Cell:
        chosen, nfe = cost
        ode = not chosen.sampler.stochastic(chosen.options) and not chosen.edits
        metrics = tuple(name for name in judge.metrics if name != RMSE or ode)
        return Cell(
            *(self.model, chosen, nfe, seeds, self.class_labels, self.dtype, self.deterministic),
            *(metrics, judge.network, judge.reference, self.negative),
        )


def plans(
    model: Any,
    samplers: Sequence[str],
    schedules: Sequence[str | None],
    sizes: Sequence[Mapping[str, Any]],
    options: Mapping[str, Sequence[Any]],
    edits: Sequence[Modifications],
    grid: Mapping[str, Any],
    warn: Callable[[str], None],
) -> Iterator[Plan]:
    """Every combination, with the options that each sampler has."""
    for name, schedule, size, edited in product(samplers, schedules, sizes, edits):
        known = {option.lower() for option in sampler_options(name)}
        own = {key: values for key, values in options.items() if key.lower() in known}
        for values in product(*own.values()):
            some = dict(zip(own, values, strict=True))
            settings = {**grid, **size}
            made = plan(model, name, schedule=schedule, options=some, edits=edited, **settings)
            if is_auto(name):
                warn(told(made, model))
            yield made


def check_options(samplers: Sequence[str], options: Mapping[str, Any]) -> None:
    known = {o for name in samplers for o in sampler_options(name)}
    for key in options:
        if key.lower() not in {o.lower() for o in known}:
            raise UnknownName(unknown_name("option of these samplers", key, sorted(known)))


def check_seeds(n: int, first_seeds: Sequence[int]) -> None:
    whole_number("the number of images in a cell", n, 1, MOST_IMAGES)
    ordered = sorted(seed_number(first) for first in first_seeds)
    seed_number(ordered[-1] + n - 1)
    for a, b in pairwise(ordered):
        if b - a < n:
            raise ValueError(
                f"repeats from seeds {a} and {b} would share images: let them be {n} apart"
            )


def check_judges(cells: Sequence[Cell], models: Models | None = None) -> None:
    """Judge one image of noise as each model's will be. ValueError, in one line, if that fails, as
    it does with a reference of another dimension, or a network for images of another size."""
    loaded = models or Models()
    every = {(c.model.path, c.network, c.reference): c for c in cells if c.judged}
    for cell in every.values():
        model = loaded.load(cell.model)
        noise = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
        try:
            collector(cell).update(three_channels(to_uint8(model.decode(noise))), [0])
        except Exception as error:  # whatever is wrong, it would be so with every cell
            raise ValueError(f"{cell.model.name}: {one_line(error)}") from error
