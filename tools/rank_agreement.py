"""Whether two feature networks put samplers in the same order, on the same images.

    kdiff sweep --features inception,cifar10-classifier .. --out sweep
    python tools/rank_agreement.py sweep

Prints Spearman's rank correlation between any two figures of one or more sweeps, over the images
of which both are known: same model, sampler, noise levels and seeds. 1 is agreement, also where the
one figure grows when the other falls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import click
from scipy.stats import spearmanr

from kdiff.eval.report.cells import higher_is_better
from kdiff.eval.sweep_folder import SweepFolder

SAME = ("sampler", "options", "schedule", "sigmas", "seeds", "class_labels", "dtype")


def figures(folders: Iterable[Path]) -> dict[str, dict[str, float]]:
    """What was measured of the finished cells: for each figure's name the badness of the images,
    by what determines these."""
    found: dict[str, dict[str, float]] = {}
    for line in chain.from_iterable(SweepFolder(folder).lines().values() for folder in folders):
        if line["status"] == "ok":
            for name, figure in line["metrics"].items():
                found.setdefault(name, {})[images_of(line["cell"])] = badness(name, figure["value"])
    return found


def images_of(cell: dict[str, Any]) -> str:
    return json.dumps([cell["model"]["sha256"], *(cell[key] for key in SAME)])


def badness(name: str, value: float) -> float:
    return -value if higher_is_better(name) else value


@click.command()
@click.argument("sweeps", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(sweeps: Sequence[Path]) -> None:
    """Rank correlations between the figures of sweeps; see the top of this file."""
    found = figures(sweeps)
    found.pop("seconds", None)
    pairs = [
        (one, other, [key for key in found[one] if key in found[other]])
        for one, other in combinations(sorted(found), 2)
    ]
    pairs = [pair for pair in pairs if len(pair[2]) >= 3]
    if not pairs:
        raise click.UsageError("no two figures are known of the same three sets of images or more")
    for one, other, common in pairs:
        values = [[found[name][key] for key in common] for name in (one, other)]
        correlation = spearmanr(*values).statistic
        click.echo(f"{one:28} {other:28} {correlation:6.3f}  ({len(common)} sets of images)")


if __name__ == "__main__":
    main()
