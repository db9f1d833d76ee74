"""What needs no torch does not import it: torch alone takes seconds."""

import json
import subprocess
import sys

import pytest

WITHOUT = {
    "--help": 0,
    "--version": 0,
    "list": 0,
    "list samplers --json": 0,
    "list schedules": 0,
    "list guidance": 0,
    "list edits": 0,
    "list preconditioners": 0,
    "explain heun --steps 3": 0,
    "explain DPM++2MSDE --steps 3 --json": 0,
    "explain hoin": 2,
    "explain heun --steps 0": 2,
    "list samlers": 2,
}


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """A folder in which programs find another torch first, that ends them."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "torch.py").write_text("import os; os._exit(99)\n")
    return folder


def python(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("words", WITHOUT)
def test_a_command(words, no_torch):
    result = python(no_torch, "-m", "kdiff", *words.split())
    assert result.returncode == WITHOUT[words], result.stderr
    assert "Traceback" not in result.stderr
    if WITHOUT[words]:
        assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_this_would_notice_torch(no_torch):
    assert python(no_torch, "-m", "kdiff", "sample", "--help").returncode == 99
    assert python(no_torch, "-c", "import kdiff; kdiff.sample").returncode == 99


def test_names_that_need_none(no_torch):
    code = """
        import json, kdiff, kdiff.guidance, kdiff.editing, kdiff.plans
        plan = kdiff.plan(sampler="heun", steps=3)
        row = kdiff.precond("edm")(1.0)
        print(json.dumps([plan.nfe, row.c_in, len(kdiff.schedule("karras", 4))]))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    result = python(no_torch, "-c", code)
    assert result.returncode == 0, result.stderr
    nfe, c_in, n = json.loads(result.stdout)
    assert (nfe, n) == (5, 5) and c_in == pytest.approx(1.25**-0.5)
