"""Points of a grid that coincide, taken apart."""

from __future__ import annotations

import numpy as np


def separated(points: np.ndarray) -> np.ndarray:
    """`points`, which must not rise, strictly falling: of those that coincide the first stays (at
    the end of all, the last), and the others go evenly to the next that is lower."""
    kept = np.flatnonzero(np.diff(points, prepend=np.inf) < 0)
    if len(kept) in (1, len(points)):
        return points
    kept[-1] = len(points) - 1
    return np.interp(np.arange(len(points)), kept, points[kept])
