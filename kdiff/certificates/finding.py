"""What a measurement finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Finding:
    """`text`: what a table shows; `values`: the figures; `failure`: what is wrong, in words, or
    nothing."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, figures to four digits: further ones depend on the machine."""
        return {"text": self.text, "failure": self.failure, **_plain(self.values)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


@dataclass(frozen=True)
class Line:
    """The least-squares line through (log x, log y): its slope with the standard error."""

    slope: float
    error: float

    def __str__(self) -> str:
        return f"{self.slope:.2f} ± {self.error:.2f}"


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """ValueError for fewer than three points."""
    if len(x) < 3:
        raise ValueError("a slope with its error takes three points")
    u, v = np.log(x), np.log(y)
    slope, offset = np.polyfit(u, v, 1)
    residual = v - slope * u - offset
    spread = ((u - u.mean()) ** 2).sum()
    return Line(float(slope), math.sqrt(float(residual @ residual) / (len(u) - 2) / spread))
