"""Schedules side by side, as a table or a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdiff.cli.lists import as_list
from kdiff.files import whole_file
from kdiff.plans import DEFAULT_SCHEDULE, DEFAULT_STEPS
from kdiff.plans import plan as make_plan
from kdiff.preconditioners import precond
from kdiff.schedules import Range, find

GIVEN = "given"  # by --sigmas
Grids = Mapping[str, Sequence[float]]


def schedules_of(grid: Mapping[str, Any]) -> Grids:
    """The sigmas of each schedule that --schedule lists, on the grid that the other options say;
    --rho is for those that have it. ValueError says what is wrong."""
    names = as_list("--schedule", grid["schedule"] or DEFAULT_SCHEDULE)
    given = {key: grid[key] for key in ("final", "sigma_min", "sigma_max", "steps", "nfe")}
    if grid["sigmas"] is not None:
        whole = {key: grid[key] for key in ("sigmas", "schedule", "rho")}
        return {GIVEN: make_plan(sampler="euler", **whole, **given).sigmas}
    if given["nfe"] is None and given["steps"] is None:
        given["steps"] = DEFAULT_STEPS

    def sigmas(name: str) -> Sequence[float]:
        has_rho = grid["rho"] is not None and "rho" in find(name).thing.settings
        rho = {"rho": grid["rho"]} if has_rho else {}
        model = stable_diffusion() if find(name).thing.discrete else None
        return make_plan(model, "euler", schedule=name, **given, **rho).sigmas

    return {name: sigmas(name) for name in dict.fromkeys(names)}


def stable_diffusion() -> Range:
    """Its timesteps, over which schedules go that need some, as no model is named here."""
    table = precond("eps", alphas_cumprod="scaled_linear")
    return Range(table.sigma_min, table.sigma_max, table.sigmas)


def discrete(grids: Grids) -> list[str]:
    """Those that go over timesteps."""
    return [name for name in grids if name != GIVEN and find(name).thing.discrete]


def table(grids: Grids) -> str:
    """A column a schedule, a row a point."""
    widths = {name: max(len(name), 10) for name in grids}
    head = "  ".join(["point", *(f"{name:>{widths[name]}}" for name in grids)])
    rows = [
        "  ".join([f"{i:5d}", *(f"{s:{w}.4g}" for s, w in zip(row, widths.values(), strict=True))])
        for i, row in enumerate(zip(*grids.values(), strict=True))
    ]
    return "\n".join([head, *rows])


def draw(grids: Grids, path: Path) -> None:
    """sigma by point, on a logarithmic axis; a last 0 has no place there."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, sigmas in grids.items():
        axes.plot([s for s in sigmas if s > 0], marker="o", markersize=3, label=name)
    axes.set(xlabel="point", ylabel="sigma", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
