"""What a sweep's folder holds: its cells, with repeats over seeds put together."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdiff.eval.evaluation import all_metrics
from kdiff.eval.sweep.cell_line import MODIFICATIONS
from kdiff.eval.sweep.cell_line import nfe as line_nfe
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.files import user_path
from kdiff.modifications import Modification

WITHOUT_NETWORK = {
    "RMSE": "RMSE to the converged solution from the same start",
    "seconds": "seconds to sample",
}
JUDGES = ("features", "reference")  # what all other metrics depend on besides the samples


@dataclass(frozen=True)
class Figure:
    """One metric of one cell: the mean over its repeats, each of `n` images.

    `error` is the standard error over repeats, std / sqrt(repeats) with ddof = 1; of a single
    repeat, the error that its evaluation gave, if any.
    """

    metric: str
    n: int
    value: float
    error: float | None
    repeats: int


@dataclass(frozen=True)
class Failure:
    """A cell that has no figures, and why."""

    cell: Mapping[str, Any]
    error: str

    @property
    def subject(self) -> str:
        """`euler (cfg:scale=1.5), NFE 10`."""
        cell = self.cell
        modified = [text for key in MODIFICATIONS for text in modifications(cell, key)]
        name = f"{cell['sampler']} ({', '.join(modified)})" if modified else cell["sampler"]
        return f"{name}, " + ("adaptive" if cell["nfe"] is None else f"NFE {cell['nfe']}")


@dataclass(frozen=True)
class Result:
    """All repeats of a cell: the cells that differ in nothing but `seeds.first`, or, if its figures
    are all `WITHOUT_NETWORK`, in that and in network and reference.

    `nfe`: evaluations of the network for each image; of an adaptive sampler the mean, None if no
    repeat knows, and then `most` are those that one image took at most.
    """

    cell: Mapping[str, Any]
    first_seeds: Sequence[int]
    figures: Sequence[Figure]
    noise_floor: Mapping[str, float]
    grid: Path | None
    failures: Sequence[Failure]
    nfe: float | None
    most: int | None = None

    @property
    def column(self) -> int:
        """Its column in tables: the least budget that pays for `nfe` evaluations."""
        return math.ceil(self.nfe or 0)

    @property
    def nfe_text(self) -> str:
        """`10`, or `23.4` of an adaptive sampler."""
        if self.nfe is None:
            return "unknown"
        return f"{self.nfe:.1f}" if isinstance(self.nfe, float) else str(self.nfe)

    def figure(self, metric: str, n: int) -> Figure | None:
        return next((f for f in self.figures if (f.metric, f.n) == (metric, n)), None)


@dataclass(frozen=True)
class Sweep:
    """A whole folder. `unjudged`: for the metrics `WITHOUT_NETWORK`, the results of different
    networks and references put together; one that stands alone is the same in both.
    `environment`: for each entry, how many cells have which value."""

    folder: Path
    about: Mapping[str, Any]
    results: Sequence[Result]
    unjudged: Sequence[Result]
    environment: Mapping[str, Counter[str]]

    @property
    def failures(self) -> list[Failure]:
        return [failure for result in self.results for failure in result.failures]

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a figure, each once; those `WITHOUT_NETWORK` last."""
        names = dict.fromkeys(f.metric for result in self.results for f in result.figures)
        judged = [name for name in names if name not in WITHOUT_NETWORK]
        return judged + [name for name in WITHOUT_NETWORK if name in names]


def modifications(cell: Mapping[str, Any], key: str) -> list[str]:
    """Its guidance or edits, as texts such as `cfg:scale=1.5`."""
    return [str(Modification(one["name"], one["options"])) for one in cell.get(key) or ()]


def bare(metric: str) -> str:
    """`FD (cifar10-classifier)` -> FD."""
    return re.sub(r" \(.*\)$", "", metric)


def higher_is_better(metric: str) -> bool:
    """Of `IS (cifar10-classifier)` as of `IS`. An unknown metric counts as a distance."""
    return any(own.label == bare(metric) and own.higher_is_better for own in all_metrics().values())


def read_sweep(folder: Path, warn: Callable[[str], None] | None = None) -> Sweep:
    """Read `sweep.json` and every `cells*.jsonl`; `warn` gets a text for each line that does not
    describe a cell.

    ValueError if there is no such folder, no cell in it, or a damaged `sweep.json`.
    """
    folder = user_path(folder)
    if not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}; give one that `kdiff sweep` wrote")
    source = SweepFolder(folder)
    lines = list(source.lines(warn).values())
    if not lines:
        raise ValueError(f"no cells in {folder}: `kdiff sweep` writes them to cells.jsonl there")
    environment: dict[str, Counter[str]] = {}
    for line in lines:
        for key, value in (line.get("environment") or {}).items():
            environment.setdefault(key, Counter())[str(value)] += 1
    lines.sort(key=lambda line: str(line.get("finished") or ""))  # the latest wins
    samples = _grouped(lines, lambda line: _identity(line["cell"], *JUDGES))
    results, unjudged = [], []
    for same_samples in samples:
        judged = _grouped(same_samples, lambda line: _identity(line["cell"]))
        own = [_together(folder, group) for group in judged]
        results += own
        unjudged.append(own[0] if len(own) == 1 else _unjudged(folder, same_samples))
    return Sweep(folder, source.commands(), results, unjudged, environment)


def _grouped(
    lines: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], str]
) -> list[list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return list(groups.values())


def _identity(cell: Mapping[str, Any], *but: str) -> str:
    """What repeats have in common. Which metrics were asked for does not change any of them."""
    same = {key: value for key, value in cell.items() if key not in ("seeds", "metrics", *but)}
    return json.dumps([same, cell["seeds"]["n"]], sort_keys=True)


def _unjudged(folder: Path, lines: Sequence[dict[str, Any]]) -> Result:
    """As `_together`, of what does not depend on network and reference."""
    result = _together(folder, lines)
    return replace(
        result,
        cell={**result.cell, **dict.fromkeys(JUDGES)},
        figures=[figure for figure in result.figures if figure.metric in WITHOUT_NETWORK],
        noise_floor={},
    )


def _together(folder: Path, lines: Sequence[dict[str, Any]]) -> Result:
    """The repeats' figures in one. Equal seeds are one repeat however often they were evaluated."""
    values: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
    lines, overlapping = _apart(lines)
    failures = [
        Failure(line["cell"], f"{_seeds(line)} overlap with others here, and are no repeat")
        for line in overlapping
    ]
    for line in lines:
        if line["status"] == "failed":
            reason = " ".join(str(line.get("error") or "no reason given").split())
            failures.append(Failure(line["cell"], reason))
            continue
        for name, metric in line["metrics"].items():
            if not _finite(metric["value"]):
                failures.append(Failure(line["cell"], f"{name} is {metric['value']}"))
                continue
            of_seed = values.setdefault((name, metric["n"]), {})
            of_seed[line["cell"]["seeds"]["first"]] = metric
    firsts = sorted({line["cell"]["seeds"]["first"] for line in lines})
    grids = [folder / line["grid"] for line in lines if line.get("grid")]
    return Result(
        cell=lines[0]["cell"],
        first_seeds=firsts,
        figures=[_figure(*key, list(of_seed.values())) for key, of_seed in values.items()],
        noise_floor={k: v for line in lines for k, v in (line.get("noise_floor") or {}).items()},
        grid=next((grid for grid in grids if grid.is_file()), None),
        failures=failures,
        **_evaluations(lines),
    )


def _evaluations(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `nfe` and `most` of a Result."""
    fixed = lines[0]["cell"]["nfe"]
    means = [mean for line in lines if (mean := line_nfe(line)) is not None]
    if fixed is not None or not means:
        return {"nfe": fixed}
    most = max(line["nfe"]["most"] for line in lines if line.get("nfe"))
    return {"nfe": statistics.fmean(means), "most": most}


def _apart(
    lines: Sequence[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines in the order of their seeds, in two lists. The second has those with figures that
    share some but not all of their seeds with a line before them."""
    apart, overlapping, last = [], [], range(0)
    for line in sorted(lines, key=lambda line: line["cell"]["seeds"]["first"]):
        seeds = line["cell"]["seeds"]
        own = range(seeds["first"], seeds["first"] + seeds["n"])
        if line["status"] == "ok" and own.start < last.stop and own != last:
            overlapping.append(line)
        else:
            apart.append(line)
            last = own if line["status"] == "ok" else last
    return apart, overlapping


def _seeds(line: Mapping[str, Any]) -> str:
    seeds = line["cell"]["seeds"]
    return f"seeds {seeds['first']} to {seeds['first'] + seeds['n'] - 1}"


def _figure(metric: str, n: int, repeats: Sequence[Mapping[str, Any]]) -> Figure:
    values = [float(repeat["value"]) for repeat in repeats]
    own = repeats[0].get("error")
    error = float(own) if own is not None and _finite(own) else None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Figure(metric, n, statistics.fmean(values), error, len(values))


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
