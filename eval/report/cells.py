"""What a sweep's folder holds: its cells, with repeats over seeds put together."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIGHER_IS_BETTER = ("IS", "precision", "recall", "density", "coverage")


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


@dataclass(frozen=True)
class Result:
    """All repeats of a cell: the cells that differ in nothing but `seeds.first`."""

    cell: Mapping[str, Any]
    first_seeds: Sequence[int]
    figures: Sequence[Figure]
    noise_floor: Mapping[str, float]
    grid: Path | None
    failures: Sequence[Failure]

    def figure(self, metric: str, n: int) -> Figure | None:
        return next((f for f in self.figures if (f.metric, f.n) == (metric, n)), None)


@dataclass(frozen=True)
class Sweep:
    """A whole folder. `environment`: for each entry, how many cells have which value."""

    folder: Path
    about: Mapping[str, Any]
    results: Sequence[Result]
    environment: Mapping[str, Counter[str]]

    @property
    def failures(self) -> list[Failure]:
        return [failure for result in self.results for failure in result.failures]

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a figure, each once; seconds last."""
        names = dict.fromkeys(f.metric for result in self.results for f in result.figures)
        return sorted(names, key=lambda name: name == "seconds")


def higher_is_better(metric: str) -> bool:
    """Of `IS (cifar10-classifier)` and `IS-openai` as of `IS`."""
    return re.split("[ -]", metric)[0] in HIGHER_IS_BETTER


def read_sweep(folder: Path) -> Sweep:
    """Read `sweep.json` and every `cells*.jsonl`. The last line of a key wins, but no failure
    after a success. A torn last line, of a sweep that was killed or still runs, is passed over.

    ValueError if there is no such folder, no cell in it, or a line that is none.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give one that `kdiff sweep` wrote")
    files = sorted(folder.glob("cells*.jsonl"))
    lines: dict[str, dict[str, Any]] = {}
    for line in (line for file in files for line in _lines(file)):
        if line["status"] == "ok" or lines.get(line["key"], line)["status"] != "ok":
            lines[line["key"]] = line
    if not lines:
        raise ValueError(f"no cells in {folder}: `kdiff sweep` writes them to cells.jsonl there")
    repeats: dict[str, list[dict[str, Any]]] = {}
    for line in lines.values():
        repeats.setdefault(_identity(line["cell"]), []).append(line)
    environment: dict[str, Counter[str]] = {}
    for line in lines.values():
        for key, value in (line.get("environment") or {}).items():
            environment.setdefault(key, Counter())[str(value)] += 1
    results = [_together(folder, group) for group in repeats.values()]
    return Sweep(folder, _about(folder / "sweep.json"), results, environment)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline ends it: torn
                return
            raise ValueError(f"{file}, line {number} is not JSON: {text[:60]!r}") from error
        if (problem := _problem(line)) is not None:
            raise ValueError(f"{file}, line {number} is not a sweep's cell: {problem}")
        yield line


def _problem(line: Any) -> str | None:
    """What keeps a line from being a cell, in words."""
    if not isinstance(line, dict):
        return "it is not an object"
    cell = line.get("cell")
    if not isinstance(line.get("key"), str) or not isinstance(cell, dict):
        return "it has no key or no cell"
    missing = {"model", "sampler", "nfe", "seeds"} - cell.keys()
    if missing:
        return f"its cell has no {', '.join(sorted(missing))}"
    shaped = isinstance(cell["model"], dict) and isinstance(cell["seeds"], dict)
    if not shaped or not {"first", "n"} <= cell["seeds"].keys():
        return "its model or its seeds are not described"
    if not isinstance(cell["nfe"], int):
        return f"its nfe is {cell['nfe']!r}"
    if line.get("status") not in ("ok", "failed"):
        return f"its status is {line.get('status')!r}, not ok or failed"
    for name, metric in (line.get("metrics") or {}).items():
        if not isinstance(metric, dict) or not {"value", "n"} <= metric.keys():
            return f"its {name} has no value or no n"
    return None


def _about(file: Path) -> dict[str, Any]:
    """`sweep.json`; a folder without one is readable too, it only says less of itself."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{file} is not an object")
    return about


def _identity(cell: Mapping[str, Any]) -> str:
    """What repeats have in common. Which metrics were asked for does not change any of them."""
    same = {key: value for key, value in cell.items() if key not in ("seeds", "metrics")}
    return json.dumps([same, cell["seeds"]["n"]], sort_keys=True)


def _together(folder: Path, lines: Sequence[dict[str, Any]]) -> Result:
    """The repeats' figures in one. Equal seeds are one repeat however often they were evaluated."""
    values: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
    failures = []
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
    lines = sorted(lines, key=lambda line: line["cell"]["seeds"]["first"])
    grids = [folder / line["grid"] for line in lines if line.get("grid")]
    return Result(
        cell=lines[0]["cell"],
        first_seeds=firsts,
        figures=[_figure(*key, list(of_seed.values())) for key, of_seed in values.items()],
        noise_floor={k: v for line in lines for k, v in (line.get("noise_floor") or {}).items()},
        grid=next((grid for grid in grids if grid.is_file()), None),
        failures=failures,
    )


def _figure(metric: str, n: int, repeats: Sequence[Mapping[str, Any]]) -> Figure:
    values = [float(repeat["value"]) for repeat in repeats]
    own = repeats[0].get("error")
    error = float(own) if own is not None and _finite(own) else None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Figure(metric, n, statistics.fmean(values), error, len(values))


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
