"""A sweep's folder: finished cells, one JSON object a line, and their pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdiff.eval.sweep.cell_line import is_finished, parse
from kdiff.files import parse_json, read_text, to_json, whole_file, write_json
from kdiff.images import grid, save_image


@dataclass(frozen=True)
class SweepFolder:
    """`path`, and which shard (i, n) of the sweep writes here. Each shard has its own file of
    lines, and reads all of them."""

    path: Path
    shard: tuple[int, int] | None = None

    @property
    def own(self) -> Path:
        name = "cells" if self.shard is None else "cells-{}-of-{}".format(*self.shard)
        return self.path / f"{name}.jsonl"

    def lines(self, warn: Callable[[str], None] | None = None) -> dict[str, dict[str, Any]]:
        """Each cell's line by its key: the last one, but a failure never replaces a success. A line
        that does not describe a cell is passed over, and `warn` is told of it, unless a crash has
        cut it off."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.path.glob("cells*.jsonl")):
            for line in _cells(path, warn or (lambda text: None)):
                if is_finished(line) or not is_finished(found.get(line["key"], line)):
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
                try:
                    parse(whole[last:])
                    data = b"\n" + data
                except ValueError:
                    os.ftruncate(handle, last)
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
        """Record the command in sweep.json. Earlier ones with other settings are kept under
        `earlier`."""
        last = self.commands()
        history = [*last.pop("earlier", []), last]
        history = [old for old in history if old and old.get("settings") != command["settings"]]
        write_json(self.path / "sweep.json", {**command, "earlier": history})

    def commands(self) -> dict[str, Any]:
        """The contents of sweep.json, empty if there is no such file. ValueError if it is
        damaged."""
        path = self.path / "sweep.json"
        try:
            found = parse_json(read_text(path), path, finite=True)
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not _are_commands(found):
            raise ValueError(
                f"{path} is damaged; write {{}} into it, which loses a record of the commands only"
            )
        return found


def _are_commands(found: Any) -> bool:
    """Whether it is a command's record, with a list of earlier ones."""
    earlier = found.get("earlier", []) if isinstance(found, dict) else None
    return isinstance(earlier, list) and all(
        isinstance(one, dict) and isinstance(one.get("command", ""), str)
        for one in [found, *earlier]
    )


def _cells(path: Path, warn: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    texts = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                yield parse(text)
            except ValueError as error:
                if number < len(texts):  # a newline ends it: it was not cut off
                    warn(f"{path}, line {number} is passed over: {error}")
