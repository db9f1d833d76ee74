"""The batches of unfinished cells, on the disk: a sweep that was stopped goes on with the next."""

from __future__ import annotations

import hashlib
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
    that are kept, `[n, *shape]`; the `seconds` that it took; and, if the sampler is adaptive, the
    `evaluations` that each sample took."""

    features: Features | None
    samples: np.ndarray
    seconds: float
    evaluations: np.ndarray | None = None


@dataclass(frozen=True)
class Unfinished:
    """The portions that cells have so far, in a sweep's folder: a safetensors file each.

    `environment`: what computes them. Portions from another environment are not used, so that every
    figure is of one version. A plug-in that changes while its `weights` stay the same is not
    noticed; nor is it in a finished cell.
    """

    folder: Path
    environment: Mapping[str, str]

    def path(self, key: str, indices: Sequence[int]) -> Path:
        """The file of the cell's batch with the images `indices[0]` to `indices[-1]`."""
        return self.folder / "unfinished" / key / f"{indices[0]}-{indices[-1]}.safetensors"

    def save(self, key: str, indices: Sequence[int], portion: Portion) -> None:
        """OSError if it cannot be written."""
        parts = {} if portion.features is None else portion.features._asdict()
        parts |= {"samples": portion.samples, "evaluations": portion.evaluations}
        arrays = {
            name: np.ascontiguousarray(array)  # safetensors writes memory as it lies
            for name, array in parts.items()
            if array is not None
        }
        described = self._description(arrays, str(portion.seconds))
        path = self.path(key, indices)
        for folder in (path.parent.parent, path.parent):  # not self.folder, which is there
            folder.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(save(arrays, described))

    def load(self, key: str, indices: Sequence[int]) -> Portion | None:
        """None if there is no file, or it is damaged or from another environment."""
        try:
            with safe_open(self.path(key, indices), framework="numpy") as file:
                described = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        if described != self._description(arrays, described.get("seconds", "")):
            return None
        samples, evaluations = arrays.pop("samples"), arrays.pop("evaluations", None)
        features = Features(**arrays) if arrays else None
        return Portion(features, samples, float(described["seconds"]), evaluations)

    def remove(self, keys: Iterable[str]) -> None:
        """These cells are finished."""
        for key in keys:
            shutil.rmtree(self.folder / "unfinished" / key, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder, unless other calls have cells in it."""
        with suppress(OSError):
            (self.folder / "unfinished").rmdir()

    def _description(self, arrays: Mapping[str, np.ndarray], seconds: str) -> dict[str, str]:
        """With a hash, since a crash of the system may leave a file of the right size only."""
        digest = hashlib.sha256(seconds.encode())
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        made_by = to_json(self.environment, indent=None, sort_keys=True)
        return {"seconds": seconds, "environment": made_by, "sha256": digest.hexdigest()}
