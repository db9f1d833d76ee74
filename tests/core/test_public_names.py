"""`kdiff.__all__` is what programs can rely on: this list, and nothing beside it."""

import ast
import inspect
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import kdiff

FACE = {
    "sampling": [
        "sample",
        "run",
        "invert",
        "drive",
        "State",
        "NonFiniteError",
        "TooManyEvaluations",
    ],
    "plans": ["plan", "Plan", "schedule", "Sampler", "Option", "Modification", "UnknownName"],
    "models": ["load", "wrap", "Denoiser", "Model", "guide", "Shared", "Noise"],
    "preconditioners": ["precond", "Precond", "Coefs", "alphas_cumprod"],
    "certificates": ["certify", "Certificate"],
    "rooms": ["analytic", "editing", "guidance", "samplers"],
}
NAMES = sorted(name for names in FACE.values() for name in names)
ROOMS = ["compat", "eval"]  # `eval` in __all__ would hide Python's own from `import *`


def test_the_names():
    assert sorted(kdiff.__all__) == NAMES
    public = [name for name in dir(kdiff) if not name.startswith("_")]
    assert sorted(public) == sorted([*NAMES, *ROOMS])


@pytest.mark.parametrize("name", [*NAMES, *ROOMS])
def test_each_is_there_and_says_what_it_is(name):
    thing = getattr(kdiff, name)
    written = inspect.getdoc(thing) or ""
    assert len(written) > 20 and not written.startswith(f"{name}("), "a dataclass's own docstring"


def test_rooms_are_modules_with_names_of_their_own():
    for name in ("editing", "eval", "guidance", "samplers"):
        room = getattr(kdiff, name)
        assert room.__name__ == f"kdiff.{name}"
        assert all(hasattr(room, inner) for inner in room.__all__)


def test_type_checkers_see_every_name():
    tree = ast.parse(Path(kdiff.__file__).read_text(encoding="utf-8"))
    seen = [
        alias.asname or alias.name
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        for alias in node.names
    ]
    assert sorted(seen) == sorted([*NAMES, *ROOMS])


USE = {
    "star": "from kdiff import *; assert sample and samplers.resolve and eval('1') == 1",
    "rooms": "import kdiff; assert kdiff.eval.evaluate and kdiff.analytic.gaussian",
    "resolve": "import kdiff; assert kdiff.samplers.resolve('Euler a').sampler",
    "modules": "import kdiff; assert kdiff.models.find_model and kdiff.checkpoints.formats()",
    "names": "from kdiff import Denoiser, plan, schedules; import kdiff.samplers.euler",
    "same": "import kdiff; from kdiff.names import UnknownName as U; assert U is kdiff.UnknownName",
}


@pytest.mark.parametrize("case", USE)
def test_in_a_fresh_process(case, tmp_path):
    subprocess.run([sys.executable, "-c", USE[case]], cwd=tmp_path, check=True)


def test_no_module_has_the_name_of_something_else():
    """Or whichever is imported last would take the other's place."""
    modules = [name for name in NAMES if find_spec(f"kdiff.{name}") is not None]
    assert sorted(modules) == sorted(FACE["rooms"])


def test_a_name_that_is_not_there():
    for name in ("smaple", "__wrapped__", "_private"):
        assert not hasattr(kdiff, name)
    with pytest.raises(ImportError, match="cannot import name 'smaple'"):
        from kdiff import smaple  # noqa: F401
