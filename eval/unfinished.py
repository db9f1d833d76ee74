"""What a sweep has of the cells under way, on the disk: stopped, it goes on with the next batch."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kdiff.eval.features import Features
from kdiff.files import to_json, whole_file


@dataclass(frozen=True)
class Portion:
    """What a batch adds to a cell: `features`, if a metric looks at them; those of its `samples`
    that are kept, `[n, *shape]`; and the `seconds` that it took."""

    features: Features | None
    samples: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Unfinished:
    """The portions that cells have so far, in a sweep's folder: a safetensors file each.

    `environment`: what computes them. What was computed by another is not gone on with, so that no
    figure is of two versions.
    """

    folder: Path
    environment: Mapping[str, str]

    def path(self, key: str, indices: Sequence[int]) -> Path:
        """Of the cell's batch, images `indices[0]` to `indices[-1]`."""
        return self.folder / "unfinished" / key / f"{indices[0]}-{indices[-1]}.safetensors"

    def save(self, key: str, indices: Sequence[int], portion: Portion) -> None:
        """OSError if it cannot be written."""
        arrays = {"samples": portion.samples}
        if portion.features is not None:
            arrays |= {k: v for k, v in portion.features._asdict().items() if v is not None}
        described = {"seconds": str(portion.seconds), "environment": self._made_by}
        path = self.path(key, indices)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(save(arrays, described))

    def load(self, key: str, indices: Sequence[int]) -> Portion | None:
        """None if there is none, or none that can be used."""
        try:
            with safe_open(self.path(key, indices), framework="numpy") as file:
                described = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        if described["environment"] != self._made_by:
            return None
        samples = arrays.pop("samples")
        features = Features(**arrays) if arrays else None
        return Portion(features, samples, float(described["seconds"]))

    def remove(self, keys: Iterable[str]) -> None:
        """These cells are finished."""
        for key in keys:
            shutil.rmtree(self.folder / "unfinished" / key, ignore_errors=True)
        with suppress(OSError):  # others are not
            (self.folder / "unfinished").rmdir()

    @property
    def _made_by(self) -> str:
        return to_json(self.environment, indent=None, sort_keys=True)
