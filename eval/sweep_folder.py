"""A sweep's folder: finished cells, one JSON object a line, and their pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdiff.files import to_json, whole_file
from kdiff.images import grid, save_image


@dataclass(frozen=True)
class SweepFolder:
    """`path`, and which shard (i, n) of the sweep writes here: each has a file of lines of its own,
    and reads those of all."""

    path: Path
    shard: tuple[int, int] | None = None

    @property
    def own(self) -> Path:
        name = "cells" if self.shard is None else "cells-{}-of-{}".format(*self.shard)
        return self.path / f"{name}.jsonl"

    def lines(self) -> dict[str, dict[str, Any]]:
        """What there is of each cell, by its key: the last line, but no failure after a success.
        What is no line, as one that a crash has cut off, is passed over."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.path.glob("cells*.jsonl")):
            for line in filter(None, map(_parse, path.read_bytes().split(b"\n"))):
                if line["status"] == "ok" or found.get(line["key"], line)["status"] != "ok":
                    found[line["key"]] = line
        return found

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line in one piece, and see that it is on the disk. OSError if that fails."""
        data = to_json(line, indent=None).encode() + b"\n"
        handle = os.open(self.own, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a crash cut this line off
                whole = self.own.read_bytes()
                last = whole.rfind(b"\n") + 1
                if _parse(whole[last:]) is None:
                    os.ftruncate(handle, last)
                else:
                    data = b"\n" + data
            if os.write(handle, data) < len(data):
                raise OSError(f"{self.own} could not be written: is the disk full?")
            os.fsync(handle)
        finally:
            os.close(handle)

    def save_grid(self, key: str, images: np.ndarray) -> str:
        """uint8 `[n, H, W, 3]`, four in a row; its path in the folder."""
        name = f"grids/{key}.png"
        (self.path / "grids").mkdir(exist_ok=True)
        with whole_file(self.path / name) as temporary:
            save_image(grid(images, columns=4), temporary)
        return name

    def add_command(self, command: Mapping[str, Any]) -> None:
        """Record in sweep.json what was called: the last one, and under `earlier` the ones before
        it that asked for something else."""
        path = self.path / "sweep.json"
        history = []
        if path.exists():
            last = json.loads(path.read_text())
            history = [*last.pop("earlier", []), last]
        history = [old for old in history if old["settings"] != command["settings"]]
        with whole_file(path) as temporary:
            temporary.write_text(to_json({**command, "earlier": history}) + "\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"key", "status"} <= found.keys() else None
