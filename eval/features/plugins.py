"""Feature networks that other people wrote: functions, found by name, whose answers are checked."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import torch

from kdiff.functions import imported, named
from kdiff.messages import one_line

ENTRY_POINTS = "kdiff.features"
MOST_FEATURES = 2**15  # an image: their covariance alone takes 8 GiB
Rows = np.ndarray | None


def plugin_names() -> dict[str, str]:
    """The installed plug-ins, each with the function that its entry point names."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def find_plugin(name: str) -> Callable[[np.ndarray], Any]:
    """The function of an entry point, or of `module:function`, which is installed or in the current
    folder. ValueError if there is none, or if its module cannot be imported."""
    found = named("feature network", name, _load)
    if not isinstance(getattr(found, "weights", ""), str):
        raise ValueError(f"feature network {name!r}: its attribute `weights` must be text, a hash")
    return found


def _load(name: str) -> Any:
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return point.load()
    return imported(name)


class Answers:
    """A function's answers as checked float32 arrays: pool, logits and spatial; the last two may be
    None. Tensors are taken from any device, without their gradients."""

    def __init__(self, name: str, function: Callable[[np.ndarray], Any]):
        self.name, self.function = name, function
        self.widths: dict[str, int] = {}

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, Rows, Rows]:
        """ValueError if the function fails, or if an answer is not one row of finite numbers for
        each image, as wide as in the earlier batches."""
        try:
            answer = self.function(images)
        except (Exception, SystemExit) as error:  # `exit(0)` would pass for success
            reason = f"{type(error).__name__}: {one_line(error, 300)}"
            raise ValueError(f"feature network {self.name} failed: {reason}") from error
        parts = answer if isinstance(answer, tuple) else (answer,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"feature network {self.name} answered with a tuple of {len(parts)}; it must be "
                "the features or (features, logits)"
            )
        pool, logits, spatial = (*parts, None, None)[:3]
        return (
            self._rows("features", pool, len(images)),
            None if logits is None else self._rows("logits", logits, len(images)),
            None if spatial is None else self._rows("spatial features", spatial, len(images)),
        )

    def _rows(self, what: str, answer: Any, n: int) -> np.ndarray:
        rows = _as_array(answer)
        if rows is None:
            raise self._wrong(what, f"of type {type(answer).__name__}, not an array of numbers")
        if rows.ndim != 2 or rows.shape[0] != n or not 1 <= rows.shape[1] <= MOST_FEATURES:
            raise self._wrong(
                what,
                f"{list(rows.shape)} for {n} images; they must be [{n}, D], D at most "
                f"{MOST_FEATURES:,}",
            )
        if rows.shape[1] != self.widths.setdefault(what, rows.shape[1]):
            raise self._wrong(what, f"{list(rows.shape)}, after {self.widths[what]} an image")
        if not np.isfinite(rows).all():
            raise self._wrong(what, "that are not finite")
        return rows

    def _wrong(self, what: str, how: str) -> ValueError:
        return ValueError(f"feature network {self.name} answered with {what} {how}")


def _as_array(answer: Any) -> np.ndarray | None:
    """As float32; None if it is not an array of real numbers."""
    try:
        if isinstance(answer, torch.Tensor):
            answer = answer.detach().cpu()
            answer = answer.float() if answer.is_floating_point() else answer
        array = np.asarray(answer)
    except (TypeError, ValueError, RuntimeError):
        return None
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False) if array.dtype.kind in "fiub" else None
