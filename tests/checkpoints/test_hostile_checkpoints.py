"""Hostile files: kdiff.load and every format's own load refuse each of them in one line. No code in
them runs, nothing is written, and memory stays bounded."""

import pickle
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch

import hostile_archives
import hostile_folders
import hostile_programs
import hostile_safetensors
import kdiff
from hostile_archives import a_pickle
from hostile_programs import torchscript_that_reaches_files
from kdiff.checkpoints import formats

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
FILES = {
    **hostile_archives.FILES,
    **hostile_safetensors.FILES,
    **hostile_programs.FILES,
    **hostile_folders.FILES,
}


@pytest.fixture
def made(tmp_path):
    """made(key): the hostile file, and the file that it would leave behind if it ran."""

    def make(key):
        name, build = FILES[key]
        (tmp_path / "in").mkdir()
        build(tmp_path / "in" / name, tmp_path / "mark")
        return tmp_path / "in" / name, tmp_path / "mark"

    def hung(*_):
        raise AssertionError("it takes too long")

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(60)
    yield make
    signal.alarm(0)


def test_there_are_enough():
    assert len(FILES) >= 30


@pytest.mark.parametrize("kind", ["os.system", "posix.system", "eval", "exec", "open", "partial"])
def test_the_traps_would_spring(tmp_path, kind):
    a_pickle(tmp_path / "a.pkl", tmp_path / "mark", kind)
    pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert (tmp_path / "mark").exists()


def test_a_program_that_is_loaded_runs(tmp_path):
    path, mark = tmp_path / "x.debug_pkl.pt", tmp_path / "mark"
    torchscript_that_reaches_files(path, mark)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0].startswith("x.debug_pkl/")
    with pytest.raises(ValueError, match="a program, which can do anything"):
        kdiff.load(path)
    assert not mark.exists()
    torch.jit.load(path)
    assert mark.exists()


@pytest.mark.parametrize("key", FILES)
def test_it_is_refused_in_one_line_and_nothing_ran(made, key, monkeypatch):
    path, mark = made(key)
    monkeypatch.chdir(path.parent)
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(ValueError) as caught:
        kdiff.load(path)
    message = str(caught.value)
    assert "\n" not in message and 10 < len(message) < 3000
    if not stat_refuses(path):
        for module in formats().values():
            with pytest.raises(Exception):  # noqa: B017  (load may trust what detect has seen)
                module.load(path)
    assert not mark.exists()
    assert sorted(p.name for p in path.parent.iterdir()) == before
    assert [p.name for p in path.parent.parent.iterdir()] == ["in"]


def stat_refuses(path: Path) -> bool:
    """Whether find_format never lets a format see it."""
    return not (path.is_file() or path.is_dir())


HEAVY = [
    key
    for key in FILES
    if any(
        word in key
        for word in (
            "bomb",
            "100_gb",
            "large",
            "not_fit",
            "preconditioner",
            "length",
            "deep",
            "pickle-unet",
        )
    )
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_the_heavy_ones_are_refused_within_half_a_gigabyte(tmp_path):
    """All run in one process, whose data may grow by 512 MB after importing."""
    paths = []
    for i, key in enumerate(HEAVY):
        name, build = FILES[key]
        (tmp_path / str(i)).mkdir()
        build(tmp_path / str(i) / name, tmp_path / "mark")
        paths.append(str(tmp_path / str(i) / name))
    code = """
        import resource, sys, kdiff, kdiff.checkpoints, torch, json
        kdiff.checkpoints.formats()
        try:
            import diffusers, onnxruntime
            from diffusers import UNet2DModel
        except ImportError:
            pass
        lines = open("/proc/self/status").read().splitlines()
        data = int(next(line for line in lines if line.startswith("VmData")).split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (data + 2**29, data + 2**29))
        for path in sys.argv[1:]:
            try:
                kdiff.load(path)
            except ValueError as error:
                reason = str(error)
                if "MemoryError" in reason or "alloc" in reason:
                    print(path, reason)
                continue
            print("loaded", path)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *paths]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr[-2000:]
    assert not (tmp_path / "mark").exists()
