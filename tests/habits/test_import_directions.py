"""Dependencies point one way, as docs/architecture.md says: which room may import which."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("counts", "interrupt", "names", "options", "plugins")  # files of kdiff/ that know nothing
ROOMS = (
    *("certificates", "checkpoints", "classifiers", "cli", "compat", "editing", "eval"),
    *("guidance", "networks", "samplers", "schedules", "text"),
)
BELOW_EVAL = {"tools", "samplers", "networks", "core", "guidance", "editing", "text", "checkpoints"}
BELOW_EVAL |= {"classifiers", "schedules"}

# Of kdiff's own; what stands in no folder of its own in kdiff/ is the core.
MAY_IMPORT = {
    "tools": {"tools"},
    "samplers": {"tools"},
    "networks": {"tools"},
    "core": BELOW_EVAL,
    "schedules": {"tools", "samplers", "core"},
    "guidance": {"tools", "core", "schedules", "classifiers"},
    "editing": {"tools", "samplers", "core", "guidance"},
    "text": {"tools", "core"},
    "checkpoints": {"tools", "networks", "core", "schedules", "text"},
    "classifiers": {"tools", "networks", "core", "checkpoints"},
    "eval": BELOW_EVAL,
    "certificates": BELOW_EVAL | {"eval"},
    "compat": BELOW_EVAL | {"eval"},
    "face": BELOW_EVAL | {"eval", "certificates", "compat"},  # kdiff/__init__.py
    "cli": BELOW_EVAL | {"eval", "certificates", "compat"},
}
# Of others', beside Python's own. What is not here may import all but click.
OTHERS = {"tools": set(), "samplers": {"numpy", "scipy", "torch"}, "networks": {"numpy", "torch"}}


def wrong_imports(root):
    """`FILE:LINE: ..` for each import below `root` that its room may not have."""
    wrong = []
    for folder in ("kdiff", "samplers", "eval"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root)
            parts = ("kdiff", *name.parts) if folder != "kdiff" else name.parts
            room = room_of((*parts[:-1], path.stem))
            for line, module in imports(path):
                if not allowed(room, module.split(".")):
                    wrong.append(f"{name}:{line}: {room} may not import {module}")
    return wrong


def room_of(parts):
    """Of `kdiff.samplers.euler`, or a name in it, as parts."""
    second = parts[1] if len(parts) > 1 else ""
    files = {"__init__": "face", "__main__": "cli", **dict.fromkeys(TOOLS, "tools")}
    return second if second in ROOMS else files.get(second, "core")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            inner = module == "kdiff"  # `from kdiff import samplers` imports kdiff.samplers
            yield from (
                (node.lineno, f"{module}.{a.name}" if inner else module) for a in node.names
            )


def allowed(room, parts):
    if not parts[0]:  # relative: only written in full does an import show where it points
        return False
    if parts[0] == "kdiff":
        return room_of(parts) in MAY_IMPORT[room] | {room}
    if parts[0] in sys.stdlib_module_names:
        return True
    return parts[0] in OTHERS[room] if room in OTHERS else room == "cli" or parts[0] != "click"


def test_dependencies_point_one_way():
    assert wrong_imports(ROOT) == []


def test_every_room_is_in_the_table_and_in_use():
    folders = {path.parent.name for path in (ROOT / "kdiff").glob("*/*.py")}
    assert folders - {"assets"} | {"eval", "samplers"} == set(ROOMS)
    assert set(ROOMS) | {"tools", "core", "face"} == set(MAY_IMPORT)
    assert all((ROOT / "kdiff" / f"{name}.py").exists() for name in TOOLS)


def test_an_import_that_points_the_wrong_way_is_told_with_its_file_and_line(tmp_path):
    files = {
        "samplers/mine.py": "import torch\nfrom kdiff.model import Model\n",
        "samplers/theirs.py": "def f():\n    import click\n",
        "eval/page.py": "from kdiff import cli, samplers\n",
        "kdiff/names.py": "import numpy\n",
        "kdiff/networks/unet.py": "from kdiff.eval.metrics import METRICS\n",
        "kdiff/sampling.py": "from .eval import evaluate\n",
        "kdiff/cli/list.py": "import click, kdiff.eval, kdiff.compat\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrong_imports(tmp_path) == [
        "kdiff/names.py:1: tools may not import numpy",
        "kdiff/networks/unet.py:1: networks may not import kdiff.eval.metrics",
        "kdiff/sampling.py:1: core may not import .eval",
        "samplers/mine.py:2: samplers may not import kdiff.model",
        "samplers/theirs.py:2: samplers may not import click",
        "eval/page.py:1: eval may not import kdiff.cli",
    ]
