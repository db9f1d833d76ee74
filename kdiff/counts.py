"""Numbers as Python, NumPy and torch give them, taken in one place.

A count is whatever `operator.index` takes (int, np.int64, a 0-d integer tensor), but never a bool,
which is a flag that went astray. Text is no number: the command line parses its own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

MOST_STEPS = 1_000_000
MOST_SEED = 2**64 - 1


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as a Python int.

    ValueError, with `name` and the bound that does not hold, unless it is a whole number from
    `least` to `most`.
    """
    try:
        number = operator.index(_scalar(value))
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number, at least {least:,}, not {_shown(value)}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be a whole number, at most {most:,}, not {_shown(value)}")
    return number


def real_number(name: str, value: Any) -> float:
    """`value` as a Python float; infinity is one. ValueError if it is NaN or not a number."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(_scalar(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} must be a number, not {_shown(value)}")
    return number


def finite_number(name: str, value: Any) -> float:
    """`real_number`, and ValueError if it is infinite."""
    number = real_number(name, value)
    if math.isinf(number):
        raise ValueError(f"{name} must be finite, not {number}")
    return number


def seed_number(seed: Any) -> int:
    """ValueError unless it is a whole number from 0 to 2^64 - 1."""
    try:
        return whole_number("a seed", seed, 0, MOST_SEED)
    except ValueError:
        message = f"a seed must be a whole number from 0 to 2^64 - 1, not {_shown(seed)}"
        raise ValueError(message) from None


def sizes(shape: Iterable[Any]) -> tuple[int, ...]:
    """A shape as Python ints, each at least 1. ValueError if it is anything else."""
    try:
        return tuple(whole_number("a size", size, 1) for size in shape)
    except (TypeError, ValueError):
        message = "shape must be whole numbers (channels, height, width), not"
        raise ValueError(f"{message} {_shown(shape)}") from None


def _scalar(value: Any) -> Any:
    """TypeError for a bool of any library, and for an array with axes, even of one entry."""
    dtype: Any = getattr(value, "dtype", type(value))
    if "bool" in str(dtype) or getattr(value, "ndim", None):
        raise TypeError
    return value


def _shown(value: Any) -> str:
    try:
        return f"{' '.join(repr(value).split()):.80}"
    except ValueError:  # Python does not write out ints of thousands of digits
        return "one of thousands of digits"
