"""Other packages that add to kdiff, as installed distributions with entry points."""

import importlib
import sys
from pathlib import Path

import pytest

from kdiff.plugins import plugins


class Packages:
    """`install(group, {name: "module:object"}, module=source, ..)`: from then on they are there, to
    the end of the test."""

    def __init__(self, folder: Path):
        self.folder, self.modules, self.count = folder, [], 0

    def install(self, group: str, points: dict[str, str], **modules: str) -> None:
        self.count += 1
        info = self.folder / f"fake{self.count}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake{self.count}\n")
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(source)
            self.modules.append(name)
        importlib.invalidate_caches()
        plugins.cache_clear()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    made = Packages(tmp_path)
    yield made
    plugins.cache_clear()
    for name in made.modules:
        sys.modules.pop(name, None)
