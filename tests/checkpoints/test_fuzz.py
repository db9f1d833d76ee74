"""Damaged files of every kind are read, or refused in a line, at little cost; nothing else happens.

Each case is a sound file of `fuzz_corpus`, damaged by `fuzz_mutations` from a seed, and read in
`fuzz_worker`. `pytest -m fuzz` takes other seeds, and many more.
"""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fuzz_worker
import nvidia_pickles
from fuzz_corpus import CORPUS, Sound
from fuzz_mutations import mutated

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
CASES, MANY = 100, 2000
MEMORY = 200_000_000  # beside twice the file
WAITING = 60  # seconds of the clock, for what waits instead of computing


class Worker:
    """The process that reads, begun again when a file has ended it. It first reads the sound files,
    because readers import things at their first call."""

    def __init__(self, folder: Path, sound: Sequence[tuple[Sound, Path]]):
        self.folder, self.sound = folder, sound
        self.begin()

    def begin(self) -> None:
        command = [sys.executable, fuzz_worker.__file__, str(self.folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        for made, path in self.sound:
            self.read(made.surface, path, made.options)

    def read(self, surface: str, path: Path, options: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stdin.write(json.dumps([surface, str(path), options]) + "\n")
        self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], WAITING)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.process.kill()
        code, errors = self.process.wait(), self.process.stderr.read()[-1000:]
        self.begin()
        return {"outcome": f"ended by {code}", "message": errors, "grown": 0, "events": []}

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def worker(folder: Path, sound: dict[str, Path]) -> Iterator[Worker]:
    found = Worker(folder, [(CORPUS[name], path) for name, path in sound.items()])
    yield found
    found.end()


@pytest.fixture(scope="module")
def sound(folder: Path) -> dict[str, Path]:
    """The path of each file of the corpus."""
    with pytest.MonkeyPatch.context() as patch:
        nvidia_pickles.nvidia_names(patch)
        (folder / "sound").mkdir()
        return {name: made.write(folder / "sound" / name) for name, made in CORPUS.items()}


def problem(found: dict[str, Any], size: int) -> str | None:
    """What a reader may not do."""
    message = found["message"]
    if found["outcome"] not in ("read", "refused"):
        return f"{found['outcome']}: {message}"
    if found["outcome"] == "refused" and not (message and message.count("\n") < 3):
        return f"the message has no line, or too many: {message!r}"
    if found["grown"] > 2 * size + MEMORY:
        return f"it took {found['grown'] / 1e6:.0f} MB for a file of {size / 1e6:.3f}"
    return f"it did {found['events']}" if found["events"] else None


def damaged(source: Path, seed: str) -> Iterator[None]:
    """`source`, or one of the files in its folder, damaged until the generator goes on."""
    rng = random.Random(seed)
    inside = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    beside = source.with_name(source.name + ".json")
    chosen = rng.choice([*inside, *([beside] if beside.is_file() else [])])
    whole = chosen.read_bytes()
    chosen.write_bytes(mutated(chosen.name, whole, rng))
    yield
    chosen.write_bytes(whole)


def read_all(name: str, worker: Worker, path: Path, first: int, n: int) -> list[str]:
    """The problems with `n` damaged versions of the file."""
    made, problems = CORPUS[name], []
    for seed in range(first, first + n):
        for _ in damaged(path, f"{name} {seed}"):
            files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            size = sum(p.stat().st_size for p in files)
            found = problem(worker.read(made.surface, path, made.options), size)
        if found:
            problems.append(f"{name}, seed {seed}: {found}")
    return problems


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CORPUS)
def test_the_sound_file_is_read(name: str, worker: Worker, sound: dict[str, Path]) -> None:
    found = worker.read(CORPUS[name].surface, sound[name], CORPUS[name].options)
    assert found["outcome"] == CORPUS[name].outcome, found["message"]
    assert not problem(found, 10**9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CORPUS)
def test_damaged_files(name: str, worker: Worker, sound: dict[str, Path]) -> None:
    problems = read_all(name, worker, sound[name], 0, CASES)
    assert not problems, "\n".join(problems)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CORPUS)
def test_very_many_damaged_files(name: str, worker: Worker, sound: dict[str, Path]) -> None:
    problems = read_all(name, worker, sound[name], CASES, MANY)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("statement", "noticed"),
    [
        ("raise KeyError(1)", "KeyError"),
        ("raise MemoryError", "MemoryError"),
        ("raise ValueError", "no line"),
        ("raise ValueError('a\\nb\\nc\\nd')", "too many"),
        ("while True: pass", "ended by -27"),
        ("os._exit(3)", "ended by 3"),
        ("os.system('true')", "os.system"),
        ("__import__('socket').socket()", "socket"),
        ("open(path / 'x', 'w')", "open"),
        ("os.mkdir(path / 'x')", "os.mkdir"),
        ("__import__('antigravity')", "import"),
        ("bytearray(b'x') * 300_000_000", "300 MB"),
    ],
)
def test_the_worker_notices(statement: str, noticed: str, worker: Worker, tmp_path: Path) -> None:
    found = problem(worker.read("statement", tmp_path, {"code": statement}), 0)
    assert found is not None and noticed in found
