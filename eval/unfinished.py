"""What a group of cells has so far, on the disk, so that a stopped sweep goes on from there."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kdiff
from kdiff.eval.ranks import ranks
from kdiff.files import whole_file

KEPT_EVERY = 300  # seconds
# Who shares a folder must not thereby run a program: a pickle may name these, and nothing else.
NAMES = {
    ("kdiff.eval.sweep", "Tally"),
    ("kdiff.eval.evaluation", "Collector"),
    ("kdiff.eval.groups", "Groups"),
    ("kdiff.eval.inception_score", "InceptionScore"),
    ("kdiff.eval.kept", "Kept"),
    ("kdiff.eval.moments", "Moments"),
    *(("numpy", name) for name in ("dtype", "ndarray", "memmap")),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class Unfinished:
    """This process's share of a group, identified by its cells' `keys` and whatever else decides
    which images are in which batch: `(batches done, tallies)`."""

    def __init__(self, folder: Path, keys: Sequence[str], batch: int):
        identity = json.dumps([*keys, batch, *ranks(), kdiff.__version__])
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = folder / "unfinished" / f"{name}.pickle"
        self._kept_at = time.monotonic()

    def load(self) -> tuple[int, Any] | None:
        """What was kept; None if nothing was, or nothing that can be used."""
        try:
            with self.path.open("rb") as file:
                done, tallies = Unpickler(file).load()
        except FileNotFoundError:
            return None
        except Exception:  # of another version, damaged, or with another package's statistics
            return None
        return done, tallies

    def keep(self, done: int, tallies: Any) -> None:
        """Write it if it is time to. OSError if the disk is full."""
        if time.monotonic() - self._kept_at < KEPT_EVERY:
            return
        self.path.parent.mkdir(exist_ok=True)
        with whole_file(self.path) as temporary, temporary.open("wb") as file:
            pickle.dump((done, tallies), file, protocol=pickle.HIGHEST_PROTOCOL)
        self._kept_at = time.monotonic()

    def remove(self) -> None:
        """The group is finished."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.exists() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


class Unpickler(pickle.Unpickler):
    """For `NAMES` only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")
        return super().find_class(module, name)
