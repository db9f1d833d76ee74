"""A line of a sweep's cells.jsonl: whether it is a cell's, and a finished one's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdiff.files import parse_json

NUMBERS = (int, float)
OF_CELL = {"options": dict, "features": dict, "reference": dict, "sigmas": list}
OPTIONAL = {"noise_floor": dict, "environment": dict, "converged": dict, "grid": str, "error": str}


def parse(text: bytes) -> dict[str, Any]:
    """A cell's line. ValueError, in words, if it is none."""
    try:
        line = parse_json(text.decode(), "it")
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    for problem in _problems(line):
        raise ValueError(problem)
    return line


def is_finished(line: Mapping[str, Any]) -> bool:
    """Whether the cell need not be computed again: a figure that is NaN or infinite is none."""
    values = [metric["value"] for metric in line["metrics"].values()]
    return line["status"] == "ok" and all(map(math.isfinite, values))


def _problems(line: Any) -> Iterator[str]:
    """What keeps a line from being a cell's, in words; each is sure of what was asked before."""
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
        if type(number) is not int or number < least:
            yield f"its {name} is {number!r:.80}"
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
    if not _is_finite({key: value for key, value in line.items() if key != "metrics"}):
        yield "it holds a number that is not finite"


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
