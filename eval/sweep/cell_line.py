"""A line of a sweep's cells.jsonl: whether it describes a cell, and a finished one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdiff.files import parse_json

NUMBERS = (int, float)
MODIFICATIONS = ("guidance", "edits")
OF_CELL = {
    **{"options": dict, "features": dict, "reference": dict, "sigmas": list, "text": dict},
    **dict.fromkeys(MODIFICATIONS, list),
    "negative_class_labels": list,
    **{"first": dict, "tableau": dict},
}
OPTIONAL = {
    **{"noise_floor": dict, "environment": dict, "converged": dict, "grid": str, "error": str},
    "nfe": dict,
}


def parse(text: bytes) -> dict[str, Any]:
    """A cell's line. ValueError, in words, if it does not describe a cell."""
    try:
        line = parse_json(text.decode(), "it")
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    for problem in _problems(line):
        raise ValueError(problem)
    return line


def is_finished(line: Mapping[str, Any]) -> bool:
    """Whether the cell need not be computed again: all its figures are finite."""
    values = [metric["value"] for metric in line["metrics"].values()]
    return line["status"] == "ok" and all(map(math.isfinite, values))


def nfe(line: Mapping[str, Any]) -> float | None:
    """How often the network was evaluated for each image: on average, if the sampler is adaptive;
    None for an adaptive one that failed."""
    taken = line.get("nfe") or {}
    return taken.get("mean") if line["cell"]["nfe"] is None else line["cell"]["nfe"]


def _problems(line: Any) -> Iterator[str]:
    """What is wrong with a line, in words; each check relies on those before it."""
    if not isinstance(line, dict):
        yield "it is not an object"
    cell = line.get("cell")
    if not isinstance(line.get("key"), str) or not isinstance(cell, dict):
        yield "it has no key or no cell"
    missing = {"model", "sampler", "nfe", "seeds"} - cell.keys()
    if missing:
        yield f"its cell has no {', '.join(sorted(missing))}"
    shaped = isinstance(cell["model"], dict) and isinstance(cell["seeds"], dict)
    if not shaped or not {"first", "n"} <= cell["seeds"].keys():
        yield "its model or its seeds are not described"
    if not isinstance(cell["sampler"], str):
        yield f"its sampler is {cell['sampler']!r:.80}"
    for name, kind in OF_CELL.items():
        if not isinstance(cell.get(name), kind | None):
            yield f"its {name} is {cell[name]!r:.80}"
    if not all(type(sigma) in NUMBERS for sigma in cell.get("sigmas") or ()):
        yield "its sigmas are not numbers"
    if type((cell.get("reference") or {}).get("n")) not in (int, type(None)):
        yield f"its reference is of {cell['reference']['n']!r:.80} images"
    for name, least in {"nfe": 1, "first": 0, "n": 1}.items():
        number = cell["nfe"] if name == "nfe" else cell["seeds"][name]
        if name == "nfe" and number is None:  # the sampler is adaptive
            continue
        if type(number) is not int or number < least:
            yield f"its {name} is {number!r:.80}"
    for name in MODIFICATIONS:
        for one in cell.get(name) or ():
            if not _is_modification(one):
                yield f"its {name} has {one!r:.80}"
    if line.get("status") not in ("ok", "failed"):
        yield f"its status is {line.get('status')!r}, not ok or failed"
    if not isinstance(line.get("metrics"), dict):
        yield "it has no metrics"
    for name, metric in line["metrics"].items():
        if not isinstance(metric, dict) or not {"value", "n"} <= metric.keys():
            yield f"its {name} has no value or no n"
        if type(metric["value"]) not in NUMBERS or type(metric["n"]) is not int:
            yield f"its {name} is {metric['value']!r:.80}, of {metric['n']!r:.80} images"
    for name, kind in OPTIONAL.items():
        if not isinstance(line.get(name), kind | None):
            yield f"its {name} is {line[name]!r:.80}"
    if cell["nfe"] is None and not _is_count(line.get("nfe"), line["status"]):
        yield f"its sampler is adaptive, and its nfe is {line.get('nfe')!r:.80}"
    if not _is_finite({key: value for key, value in line.items() if key != "metrics"}):
        yield "it holds a number that is not finite"


def _is_modification(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("options"), dict)
    )


def _is_count(taken: Any, status: str) -> bool:
    """Whether it is what `finishing.taken` says of the evaluations."""
    if taken is None:
        return status == "failed"
    most, mean = taken.get("most"), taken.get("mean")
    return type(most) is int and type(mean) in NUMBERS and 1 <= mean <= most


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
