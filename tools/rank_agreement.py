"""Whether two feature networks put samplers in the same order, on the same images.

    kdiff sweep --features inception,cifar10-classifier .. --out sweep
    python tools/rank_agreement.py sweep

Prints Spearman's rank correlation between any two figures of one or more sweeps, over the images
for which both are known: same model, guidance, sampler, edits, noise levels and seeds. 1 is
agreement, also if one figure grows when the other falls. Figures agree easily that more evaluations
are better, so `--budget 5,10,20` also prints the correlation among the images that took 1 to 5
evaluations, 6 to 10, and 11 to 20. They also agree easily that good samplers are better than bad
ones; `--sampler unipc,ipndm,..` takes only these samplers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any

import click
from scipy.stats import spearmanr

from kdiff.cli.grid_options import usage_errors
from kdiff.cli.lists import as_budgets, as_list
from kdiff.cli.paths import UserPath
from kdiff.eval.report.cells import WITHOUT_NETWORK, higher_is_better
from kdiff.eval.sweep.cell_line import nfe as line_nfe
from kdiff.eval.sweep.folder import SweepFolder

SAME = ("sampler", "options", "schedule", "sigmas", "seeds", "class_labels", "dtype")
SAME_IF_ANY = ("guidance", "edits")


def read(
    folders: Iterable[Path], samplers: Sequence[str]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Of the finished cells, of `samplers` only if there are any: for each figure's name the
    badness of the images, and the images' NFE, both by what determines the images. click.UsageError
    if figures cannot be compared, or a sampler has no cell."""
    found: dict[str, dict[str, float]] = {}
    nfe: dict[str, float] = {}
    judges: dict[str, tuple[Any, Any]] = {}
    sizes: set[tuple[str, int]] = set()
    lines = list(chain.from_iterable(SweepFolder(folder).lines().values() for folder in folders))
    for name in set(samplers) - {line["cell"]["sampler"] for line in lines}:
        raise click.UsageError(f"no cell is of {name!r}")
    for line in lines:
        if line["status"] == "ok" and (not samplers or line["cell"]["sampler"] in samplers):
            images = images_of(line["cell"])
            nfe[images] = line_nfe(line) or 0
            sizes.add((line["cell"]["model"]["sha256"], line["cell"]["seeds"]["n"]))
            judge = line["cell"].get("features"), line["cell"].get("reference")
            for name, figure in line["metrics"].items():
                if name not in WITHOUT_NETWORK and judges.setdefault(name, judge) != judge:
                    raise click.UsageError(f"{name} is of more than one network or reference")
                found.setdefault(name, {})[images] = badness(name, figure["value"])
    if len(sizes) > 1:
        raise click.UsageError("they are of more than one model or N, which would set the order")
    return found, nfe


def images_of(cell: dict[str, Any]) -> str:
    return json.dumps(
        [cell["model"]["sha256"], *(cell[key] for key in SAME), *map(cell.get, SAME_IF_ANY)]
    )


def badness(name: str, value: float) -> float:
    return -value if higher_is_better(name) else value


def correlation(one: dict[str, float], other: dict[str, float], keys: Sequence[str]) -> str:
    """Spearman's, and of how many; a dash for fewer than three."""
    if len(keys) < 3:
        return f"     -  ({len(keys)})"
    rho = spearmanr([one[key] for key in keys], [other[key] for key in keys]).statistic
    return f"{rho:6.3f}  ({len(keys)} sets of images)"


@click.command()
@click.argument("sweeps", nargs=-1, required=True, type=UserPath())
@click.option("--sampler", "samplers", help="Only these samplers, a list.")
@click.option("--budget", help="Also within these numbers of evaluations, such as 5,10,20.")
def main(sweeps: Sequence[Path], samplers: str | None, budget: str | None) -> None:
    """Rank correlations between the figures of sweeps; see the top of this file."""
    with usage_errors():
        budgets = [] if budget is None else as_budgets("--budget", budget)
        chosen = [] if samplers is None else as_list("--sampler", samplers)
    found, nfe = read(sweeps, chosen)
    found.pop("seconds", None)
    pairs = [
        (one, other, [key for key in found[one] if key in found[other]])
        for one, other in combinations(sorted(found), 2)
    ]
    pairs = [pair for pair in pairs if len(pair[2]) >= 3]
    if not pairs:
        raise click.UsageError("no two figures are known of the same three sets of images or more")
    for one, other, common in pairs:
        click.echo(f"{one:28} {other:28} {correlation(found[one], found[other], common)}")
        for low, high in pairwise([0, *budgets]):
            within = [key for key in common if low < nfe[key] <= high]
            told = correlation(found[one], found[other], within)
            span = f"{high}" if high == low + 1 else f"{low + 1} to {high}"
            click.echo(f"  NFE {span}".ljust(58) + told)


if __name__ == "__main__":
    main()
