"""Tableaux as files: what a sampler computes, as JSON that is itself a sampler (docs/tableaux.md).

A file is data: numbers by symbol. Reading checks that they are a sampler's, so that a file that
passes can be run: each row is made of what is known by then, and its coefficients of x_T, the
answers and the mean sum to 1, so that one image in all their places stays that image.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kdiff.counts import MOST_STEPS
from kdiff.files import MOST_TEXT, FilePath, parse_json, read_text, to_json, user_path, whole_file
from kdiff.samplers import UnknownName, resolve
from kdiff.samplers.outline import Draw
from kdiff.samplers.registry import NoiseKind
from kdiff.samplers.tableau import MEAN, START, Linear, Row, Tableau
from kdiff.schedules import LARGEST_SIGMA, SMALLEST_SIGMA, check_sigmas

FORMAT = "kdiff-tableau/1"
SUFFIX = ".json"
PREFIX = "tableau "  # of the names that tableaux have as samplers
TOLERANCE = 1e-9  # of a row's sum, relative to the sum of its magnitudes
MOST_ASKS = 10_000
LARGEST = 1e12  # of a coefficient
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()=-]{0,99}")
_SYMBOL = re.compile(r"([Dn])([1-9][0-9]{0,5})")
_OF_BUDGET = re.compile(r"nfe([1-9][0-9]{0,5})\.json")
_KEYS = {"format", "name", "source", "sigmas", "asks", "noises", "result"}
_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)


@dataclass(frozen=True)
class TableauFile:
    """A tableau with its grid. `name`: how rows of results call it; `source`: what it was made
    from, as plain values; `noise`: the kind of all its noises; `sha256`: of the file."""

    name: str
    tableau: Tableau
    sigmas: Sequence[float]
    noise: NoiseKind | None = None
    source: Mapping[str, Any] | None = None
    sha256: str = ""


def tableau_path(sampler: Any) -> Path | None:
    """The file or folder that stands for a sampler; None if it is a name. A text with a slash, or
    that ends in .json, is a path, and so is a folder whose name no sampler has."""
    if isinstance(sampler, Path):
        return user_path(sampler)
    if not isinstance(sampler, str):
        return None
    if "/" in sampler or os.sep in sampler or sampler.lower().endswith(SUFFIX):
        return user_path(sampler)
    return user_path(sampler) if os.path.isdir(sampler) and not _is_name(sampler) else None


def _is_name(sampler: str) -> bool:
    try:
        resolve(sampler)
    except UnknownName:
        return False
    return True


def by_budget(folder: Path) -> dict[int, Path]:
    """The files nfe3.json, nfe5.json .. of a folder, by their number of evaluations, the largest
    first. ValueError if there is none."""
    found = {}
    for path in folder.iterdir():
        matched = _OF_BUDGET.fullmatch(path.name)
        if matched:
            found[int(matched[1])] = path
    if not found:
        raise ValueError(f"{folder} has no tableaux: they are named nfe5.json and so on")
    return dict(sorted(found.items(), reverse=True))


def read_tableau(path: FilePath) -> TableauFile:
    """ValueError, in one line, unless the file is a tableau (docs/tableaux.md)."""
    path = user_path(path)
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        text = read_text(path)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return _tableau(parse_json(text, "it", finite=True, unique=True), digest)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a tableau: {error}") from error


def write_tableau(path: FilePath, file: TableauFile) -> None:
    """Write it, whole or not at all, if it can be read again. ValueError if not; OSError."""
    text = tableau_text(file)
    if len(text) > MOST_TEXT:
        raise ValueError(f"a tableau of {len(text):,} bytes is too large: take fewer steps")
    _tableau(parse_json(text, "it", finite=True, unique=True), "")
    with whole_file(user_path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def tableau_text(file: TableauFile) -> str:
    """Its JSON, a line for each ask."""
    tableau = file.tableau
    asks = [{"sigma": ask.sigma, "step": ask.step, "row": _terms(ask.x)} for ask in tableau.asks]
    noises = [
        {"from": n.s, "to": n.t, "draw": n.draw, "stream": n.stream, "kind": file.noise}
        for n in tableau.draws
    ]
    parts = {
        "format": _line(FORMAT),
        "name": _line(file.name),
        **({"source": _line(file.source)} if file.source else {}),
        "sigmas": _line(list(file.sigmas)),
        "asks": _lines(asks),
        "noises": _lines(noises),
        "result": _line(_terms(tableau.result)),
    }
    return "{\n" + ",\n".join(f' "{key}": {value}' for key, value in parts.items()) + "\n}\n"


def _terms(row: Linear) -> dict[str, float]:
    return {symbol: c for symbol, c in row.terms.items() if c}


def _line(value: Any) -> str:
    return to_json(value, indent=None)


def _lines(values: Sequence[Any]) -> str:
    return "[\n  " + ",\n  ".join(map(_line, values)) + "\n ]" if values else "[]"


# --- reading ---


def _tableau(value: Any, digest: str) -> TableauFile:
    top = _object("it", value, _KEYS, optional={"source"})
    if top["format"] != FORMAT:
        raise ValueError(f"its format is {_shown(top['format'])}, not {FORMAT}")
    name = top["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("its name must be 1 to 100 letters, digits, spaces and . _ + ( ) = -")
    source = top.get("source")
    if not isinstance(source, dict | None):
        raise ValueError("its source must be an object")
    sigmas = check_sigmas([_number("a sigma", s) for s in _list("sigmas", top["sigmas"])])
    kinds, draws = _noises(_list("noises", top["noises"]))
    asks = _list("asks", top["asks"])
    if not 1 <= len(asks) <= MOST_ASKS:
        raise ValueError(f"it must have 1 to {MOST_ASKS:,} asks, not {len(asks):,}")
    rows = [_ask(i, ask, len(sigmas) - 1, len(draws)) for i, ask in enumerate(asks, 1)]
    result = _row("result", top["result"], len(asks), len(draws))
    return TableauFile(name, Tableau(rows, result, draws), sigmas, kinds, source, digest)


def _ask(i: int, value: Any, steps: int, noises: int) -> Row:
    where = f"ask {i}"
    ask = _object(where, value, {"sigma", "step", "row"})
    sigma = _number(f"the sigma of {where}", ask["sigma"])
    if not 0 < sigma <= LARGEST_SIGMA:
        raise ValueError(f"the sigma of {where} must be above 0 and at most {LARGEST_SIGMA:g}")
    step = _whole(f"the step of {where}", ask["step"], steps - 1)
    return Row(step, sigma, _row(where, ask["row"], i - 1, noises))


def _row(where: str, value: Any, answers: int, noises: int) -> Linear:
    """The coefficients of a row, which knows so many answers and noises."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"the row of {where} must be an object of coefficients by symbol")
    terms = {}
    for symbol, number in value.items():
        found = _SYMBOL.fullmatch(symbol)
        there = found and int(found[2]) <= (answers if found[1] == "D" else noises)
        if not there and symbol not in (START, MEAN):
            raise ValueError(f"the row of {where} has {symbol!r:.40}, which is not known by then")
        terms[symbol] = _number(f"the coefficient of {symbol} in {where}", number)
        if abs(terms[symbol]) > LARGEST:
            raise ValueError(f"the coefficient of {symbol} in {where} is beyond {LARGEST:g}")
    images = [c for symbol, c in terms.items() if symbol[0] != "n"]
    total, size = math.fsum(images), math.fsum(map(abs, images))
    if abs(total - 1) > TOLERANCE * max(1.0, size):
        raise ValueError(
            f"the coefficients of x_T, answers and mean in {where} sum to {total:.12g}, not to 1"
        )
    return Linear(terms)


def _noises(values: Sequence[Any]) -> tuple[NoiseKind | None, list[Draw]]:
    kinds: set[NoiseKind] = set()
    draws = []
    if len(values) > MOST_ASKS:
        raise ValueError(f"it must have at most {MOST_ASKS:,} noises, not {len(values):,}")
    for i, value in enumerate(values, 1):
        where = f"noise {i}"
        one = _object(where, value, {"from", "to", "draw", "stream", "kind"})
        s, t = (_number(f"{key} of {where}", one[key]) for key in ("from", "to"))
        least = 0.0 if one["kind"] == "white" else SMALLEST_SIGMA
        if not (
            least <= s <= LARGEST_SIGMA
            and least <= t <= LARGEST_SIGMA
            and (s != t or one["kind"] == "white")
        ):
            raise ValueError(f"{where} must be for an interval of noise levels, from {least:g} on")
        if not isinstance(one["stream"], str) or len(one["stream"]) > 100:
            raise ValueError(f"the stream of {where} must be text of at most 100 characters")
        kind = next((kind for kind in _KINDS if kind == one["kind"]), None)
        if kind is None:
            raise ValueError(f"the kind of {where} must be {' or '.join(_KINDS)}")
        draw = _whole(f"the draw of {where}", one["draw"], MOST_STEPS)
        kinds.add(kind)
        draws.append(Draw(s, t, draw, one["stream"]))
    if len(kinds) > 1:
        raise ValueError("its noises must all be of one kind")
    return (kinds.pop() if kinds else None), draws


def _object(where: str, value: Any, keys: Set[str], optional: Set[str] = frozenset()) -> Any:
    """ValueError unless it is an object with these keys."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    for key in sorted(keys - value.keys() - optional):
        raise ValueError(f"{where} has no {key}")
    for key in value.keys() - keys:
        raise ValueError(f"{where} has an unknown key {key!r:.40}")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its {name} must be a list")
    return value


def _number(name: str, value: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f"{name} must be a finite number, not {_shown(value)}")


def _whole(name: str, value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most:,}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Short, and not by the repr of what may be nested deeply."""
    return f"{value!r:.40}" if not isinstance(value, dict | list) else type(value).__name__
