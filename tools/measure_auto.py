"""The measurement behind `--sampler auto`: kdiff/assets/auto.json.

    python tools/measure_auto.py --out auto
    python tools/measure_auto.py --from docs/sweep/samplers

The first runs two sweeps into the folder, and goes on where it stopped: every sampler that solves
the ODE, on each schedule, with both endings, with and without the analytic first answer, for each
budget, by its RMSE to the converged solution; then the nearest `--keep` of each budget by the
Frechet distance of the small network. The second takes the same choice from sweeps that were run
before. Both write the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from kdiff.auto import MEASURED
from kdiff.cli.grid_options import usage_errors
from kdiff.cli.lists import as_list, as_numbers
from kdiff.cli.sweep_choices import choose_model
from kdiff.eval.evaluation import reference_for
from kdiff.eval.features import feature_network
from kdiff.eval.sweep import Cell, Judge, Models, SweepFolder, expand, outstanding, run
from kdiff.files import to_json
from kdiff.model_data import FIRSTS
from kdiff.samplers import REGISTRY
from kdiff.schedules import FINALS

MODEL, NETWORK = "cifar10", "cifar10-classifier"
RMSE, FD = "RMSE", f"FD ({NETWORK})"
BUDGETS = "3,4,5,6,8,10,15,20,30,50"
Lines = Iterable[Mapping[str, Any]]


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("auto"), help="Folder.")
@click.option("--from", "folders", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--nfe", default=BUDGETS, help="The budgets, a list.")
@click.option("--sampler", "samplers", help="A list.  [default: all that solve the ODE]")
@click.option("--schedule", "schedules", default="karras,exponential", help="A list.")
@click.option("--seeds", default=40, help="For the RMSE.")
@click.option("--num", default=500, help="Images for the FD; 0 is to choose by the RMSE alone.")
@click.option("--keep", default=4, help="How many of a budget are judged by the FD.")
@click.option("--batch", default=64)
@click.option("--device", default="cpu")
@click.option("--write", type=click.Path(path_type=Path), default=MEASURED, help="The table.")
def main(
    out: Path,
    folders: Sequence[Path],
    nfe: str,
    samplers: str | None,
    schedules: str,
    seeds: int,
    num: int,
    keep: int,
    batch: int,
    device: str,
    write: Path,
) -> None:
    """Measure and write the table; see the top of this file."""
    with usage_errors():
        budgets = as_numbers("--nfe", nfe)
        names = ode_samplers() if samplers is None else as_list("--sampler", samplers)
        if not folders:
            cells = candidates(names, as_list("--schedule", schedules), budgets, seeds)
            nearest = measure(cells, out / "rmse", batch, device)
            if num:
                kept = {key for b in budgets for key in by_rmse(nearest, b)[:keep]}
                judged = [judged_by_fd(cell, num) for cell in cells if cell.key in kept]
                measure(judged, out / "fd", batch, device)
            folders = [out / "rmse", *([out / "fd"] if num else [])]
        found = merged(line for one in folders for line in SweepFolder(one).lines().values())
        table = chosen(found, budgets, keep)
    write.write_text(to_json({**table, "folders": [str(one) for one in folders]}) + "\n")
    for budget, best in table["budgets"].items():
        click.echo(f"{budget:>4}  {json.dumps(best)}")


# --- measuring ---


def ode_samplers() -> list[str]:
    return [n for n, s in REGISTRY.items() if s.ode is not None and s.limit is None]


def candidates(
    samplers: Sequence[str], schedules: Sequence[str], budgets: Sequence[int], seeds: int
) -> list[Cell]:
    """A cell for each candidate that draws no noise and takes its whole budget, or one less."""
    ends = [{"final": end, "first": first} for end in FINALS for first in (None, *FIRSTS)]
    noisy = [n for n in samplers if REGISTRY[n].stochastic()]
    plain = [n for n in samplers if n not in noisy]
    cells = []
    for names, options in [(plain, {}), *(([n], ode_options(n)) for n in noisy)]:
        for budget in budgets if names else ():
            cells += possible(names, schedules, budget, ends, options, seeds)
    return [cell for cell in cells if cell.metrics]


def ode_options(name: str) -> dict[str, list[Any]]:
    return {key: [value] for key, value in (REGISTRY[name].ode or {}).items()}


def possible(
    names: Sequence[str],
    schedules: Sequence[str],
    budget: int,
    ends: Sequence[Mapping[str, Any]],
    options: Mapping[str, Sequence[Any]],
    seeds: int,
) -> list[Cell]:
    """Without the samplers that need more evaluations for their first step."""
    cells = []
    for name in names:
        for end in ends:
            try:
                cells += expand(
                    [choose_model(MODEL)],
                    [name],
                    sizes=[{"nfe": budget}],
                    schedules=schedules,
                    ends=[end],
                    options=options,
                    n=seeds,
                    judges=[Judge(("rmse",))],
                    models=LOADED,
                )
            except ValueError as error:
                click.echo(f"left out: {name} at {budget}: {error}", err=True)
    return cells


LOADED = Models()


def judged_by_fd(cell: Cell, num: int) -> Cell:
    network = feature_network(NETWORK)
    reference = reference_for(MODEL, network, ["fid"])
    return replace(cell, seeds=range(num), metrics=("fid",), network=network, reference=reference)


def measure(cells: Sequence[Cell], folder: Path, batch: int, device: str) -> Lines:
    """Their lines, of which the folder may have some."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = SweepFolder(folder)
    todo = outstanding(cells, kept)
    with tqdm(total=len(todo), unit="cell") as bar:
        for _ in run(todo, kept, batch=batch, device=device, models=LOADED):
            bar.update()
    return list(kept.lines().values())


# --- choosing ---


def identity(cell: Mapping[str, Any]) -> str:
    """What determines a cell's plan."""
    keys = ("sampler", "options", "schedule", "final", "first", "sigmas")
    return json.dumps([cell.get(key) for key in keys], sort_keys=True)


def merged(lines: Lines) -> list[dict[str, Any]]:
    """One line for each plan, with all figures: the FD may be in another sweep than the RMSE."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["status"] == "ok" and not any(line["cell"].get(k) for k in ("guidance", "edits")):
            one = found.setdefault(identity(line["cell"]), {**line, "metrics": {}})
            one["metrics"] |= line["metrics"]
    return list(found.values())


def value(line: Mapping[str, Any], metric: str) -> float:
    figure = line["metrics"].get(metric, {}).get("value", math.inf)
    return figure if math.isfinite(figure) else math.inf


def of_budget(lines: Lines, budget: int) -> list[Mapping[str, Any]]:
    """The lines of the ODE's samplers that are what `--nfe BUDGET` gives, nearest first."""
    found = [line for line in lines if RMSE in line["metrics"] and is_plan(line["cell"], budget)]
    return sorted(found, key=lambda line: value(line, RMSE))


def by_rmse(lines: Lines, budget: int) -> list[str]:
    return [line["key"] for line in of_budget(lines, budget)]


def is_plan(cell: Mapping[str, Any], budget: int) -> bool:
    name, options = cell["sampler"], cell["options"]
    if name not in REGISTRY or not 0 < cell["nfe"] <= budget:
        return False
    asked = budget + bool(cell.get("first"))
    try:
        return REGISTRY[name].steps(asked, cell["final"], changed(name, options)) == cell["steps"]
    except ValueError:
        return False


def changed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not the default: JSON has no infinity, and has it as text."""
    known = REGISTRY[name].options
    return {k: v for k, v in options.items() if str(v) != str(known[k].default)}


def chosen(lines: Lines, budgets: Sequence[int], keep: int) -> dict[str, Any]:
    """The table: of the `keep` nearest of each budget the one with the least FD, or the nearest
    where there is no FD."""
    table: dict[str, Any] = {}
    most, about = 0, {}
    for budget in budgets:
        nearest = of_budget(lines, budget)
        if not nearest:
            click.echo(f"nothing was measured for {budget} evaluations", err=True)
            continue
        best = min(nearest[:keep], key=lambda line: (value(line, FD), value(line, RMSE)))
        most, about = max(most, len(nearest)), best
        cell = best["cell"]
        table[str(budget)] = {
            "sampler": cell["sampler"],
            "options": changed(cell["sampler"], cell["options"]),
            "schedule": cell["schedule"],
            "final": cell["final"],
            "first": (cell.get("first") or {}).get("name"),
            "figures": {m: round(value(best, m), 5) for m in (RMSE, FD) if m in best["metrics"]},
        }
    if not table:
        raise ValueError("these sweeps have no sampler of the ODE with an RMSE at these budgets")
    counts = {m: about["metrics"][m]["n"] for m in (RMSE, FD) if m in about["metrics"]}
    judged = f"RMSE to the converged solution ({counts[RMSE]} seeds)"
    if FD in counts and keep > 1:
        judged += f", and of the nearest {keep} by {FD} of {counts[FD]} images"
    model = about["cell"]["model"]
    return {
        "model": model["name"],
        "model_sha256": model["sha256"],
        "judged": judged,
        "candidates": most,
        "budgets": table,
    }


if __name__ == "__main__":
    main()
