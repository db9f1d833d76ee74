"""Butcher tableaux by name, or from JSON files."""

from __future__ import annotations

import json
import math
from typing import Any

from kdiff.counts import real_number
from kdiff.names import UnknownName, unknown_name
from kdiff.samplers.butcher import TABLEAUX, named
from kdiff.samplers.butcher_conditions import Butcher, order_of

LARGEST_FILE = 2**16


def tableau_of(name: str) -> Butcher:
    """The tableau of this name, or in this JSON file. ValueError if it is neither, or wrong."""
    found = named(name)
    if found is not None:
        return found
    if not name.endswith(".json"):
        known = unknown_name("tableau", name, TABLEAUX).removesuffix("?")
        raise UnknownName(f"{known}; a file's name must end in .json")
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE:,} characters")
        return from_json(name, json.loads(text))
    except OSError as error:
        raise ValueError(f"cannot read the tableau {name}: {error.strerror or error}") from error
    except RecursionError as error:
        raise ValueError(f"the tableau {name} is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"the tableau {name} cannot be used: {error}") from error


def from_json(name: str, value: Any) -> Butcher:
    """{"a": [[..], ..], "b": [..], "c": [..]}. Numbers may be fractions in text: "1/3". The rows of
    `a` may be full ones, with zeros on and above the diagonal. `c` may be left out, and
    `b_embedded` added. The orders are what the conditions say, 8 at most."""
    keys = {"a", "b", "c", "b_embedded"}
    if not isinstance(value, dict) or not {"a", "b"} <= {*value} <= keys:
        raise ValueError('it must be {"a": [[..], ..], "b": [..], "c": [..]}')
    if not isinstance(value["a"], list):
        raise ValueError("a must be a list of rows")
    b = _numbers("b", value["b"])
    a = [_explicit(i, len(b), _numbers("a", row)) for i, row in enumerate(value["a"])]
    c = _numbers("c", value["c"]) if "c" in value else [math.fsum(row) for row in a]
    lower = _numbers("b_embedded", value["b_embedded"]) if "b_embedded" in value else None
    Butcher(name, a, b, c, 1, lower, 1)  # it is consistent, so that it has an order
    order_embedded = None if lower is None else order_of(a, lower)
    return Butcher(name, a, b, c, order_of(a, b), lower, order_embedded, name)


def _numbers(key: str, values: Any) -> list[float]:
    if not isinstance(values, list):
        raise ValueError(f"{key} must be made of lists of numbers")
    return [_number(key, value) for value in values]


def _number(key: str, value: Any) -> float:
    if not isinstance(value, str):
        return real_number(key, value)
    try:
        over, _, under = value.partition("/")
        return float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{key} must hold numbers, or text like 1/3, not {value!r:.40}") from None


def _explicit(i: int, stages: int, row: list[float]) -> list[float]:
    if len(row) == stages and any(row[i:]):
        raise ValueError("it is implicit: a has weights on or above its diagonal")
    return row[:i] if len(row) == stages else row
