"""Several processes in one sweep's folder: no cell twice, none missing, whoever dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import kdiff.eval.sweep.claims
from kdiff.eval.sweep.claims import Claims
from small_sweeps import COMMAND, ENVIRONMENT, lines, results

ELSEWHERE = json.dumps({"node": "elsewhere 1", "pid": 1})


@pytest.fixture
def claims(tmp_path):
    with Claims(tmp_path) as own:
        yield own


def left_by(folder, text, seconds_ago=0.0):
    """A claim on `a` that another process has left."""
    path = folder / ".claims" / "a.0"
    path.parent.mkdir()
    path.write_text(text)
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


def test_one_takes_and_the_other_does_not(claims, tmp_path):
    assert claims.take("a") and claims.holds("a")
    with Claims(tmp_path) as other:
        assert not other.take("a") and other.take("b")
        assert str(os.getpid()) in other.holder("a")
        claims.release("a")
        assert other.take("a") and not claims.take("a")
    assert claims.take("a")


def test_no_folder_is_left_behind(tmp_path):
    with Claims(tmp_path) as claims:
        assert claims.take("a")
    assert not list(tmp_path.iterdir())


def test_a_dead_process_is_succeeded_at_once(claims, tmp_path):
    code = (
        "from kdiff.eval.sweep.claims import _node; import os; print(_node(), os.getpid(), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    node, pid = done.stdout.strip().split("|")
    left_by(tmp_path, json.dumps({"node": node, "pid": int(pid)}))
    assert claims.take("a") and claims.holds("a")
    claims.release("a")
    assert not list((tmp_path / ".claims").iterdir())


@pytest.mark.parametrize("text", [ELSEWHERE, "", "{", "[]", '{"node": 1, "pid": "x"}'])
def test_what_is_not_touched_for_a_minute_is_succeeded(claims, tmp_path, text):
    path = left_by(tmp_path, text)
    assert not claims.take("a")
    os.utime(path, (time.time() - 50,) * 2)
    assert not claims.take("a")
    os.utime(path, (time.time() - 70,) * 2)
    assert claims.take("a")


def test_a_claim_is_kept_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(kdiff.eval.sweep.claims, "BEAT", 0.05)
    with Claims(tmp_path) as claims:
        assert claims.take("a")
        path = tmp_path / ".claims" / "a.0"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert time.time() - path.stat().st_mtime < 10


def test_one_that_was_succeeded_knows(claims, tmp_path):
    assert claims.take("a")
    (tmp_path / ".claims" / "a.1").write_text(ELSEWHERE)
    assert not claims.holds("a")
    claims.release("a")
    assert [path.name for path in (tmp_path / ".claims").iterdir()] == ["a.1"]


def test_a_removed_folder_is_an_error(claims, tmp_path):
    assert claims.take("a")
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match="removed"):
        claims.holds("a")
    with pytest.raises(FileNotFoundError):
        claims.take("b")
    tmp_path.mkdir()


COUNT = """
import sys
from pathlib import Path
from kdiff.eval.sweep.claims import Claims
folder = Path(sys.argv[1])
with Claims(folder) as claims:
    for _ in range(40):
        with claims.hold("counter"):
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))
"""


def test_only_one_at_a_time_has_it(tmp_path):
    (tmp_path / "number").write_text("0")
    call = [sys.executable, "-c", COUNT, str(tmp_path)]
    processes = [subprocess.Popen(call, env=ENVIRONMENT) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


# --- sweeps ---

SLOW = (  # two seconds a group, in which nothing is computed
    "import time, kdiff.eval.sweep.running as s; own = s.compute; "
    "s.compute = lambda *given: (time.sleep(2), own(*given))[1]; " + COMMAND
)
SOON = "import kdiff.eval.sweep.claims as k; k.BEAT, k.STALE = 0.2, 1.5; " + SLOW


@pytest.fixture
def start(workplace):
    """A function that starts a sweep of 32 cells, in four groups, in a folder."""
    arguments = [
        *("sweep", "--model", workplace / "tiny.safetensors", "--batch", 4, "--num", 4),
        *("--sampler", "euler,heun,dpmpp_2m,lms,ddim,ipndm,unipc,euler_ancestral"),
        *("--steps", "2,3,4,5", "--metrics", "rmse", "--out"),
    ]
    started = []

    def call(out, command=SLOW):
        words = [sys.executable, "-c", command, *map(str, arguments), str(out)]
        process = subprocess.Popen(
            words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def until(true):
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("cells*.jsonl"))


def computing(folder, process):
    return any(f'"pid": {process.pid}}}' in text for text in map(said, claimed(folder)))


def claimed(folder):
    return [path for path in folder.glob(".claims/*") if not path.name.startswith("lines")]


def said(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def test_three_share_the_work_and_one_is_killed(start, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    processes = [start(out) for _ in range(3)]
    killed = processes.pop()
    until(lambda: computing(out, killed))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert start(whole, COMMAND).wait(timeout=300) == 0
    assert len(lines(out)) == 32  # each once, which `lines` sees to
    assert results(out) == results(whole)
    assert not (out / "unfinished").exists()


def test_one_that_was_asleep_repeats_nothing(start, tmp_path):
    asleep = start(tmp_path, SOON)
    until(lambda: computing(tmp_path, asleep))
    asleep.send_signal(signal.SIGSTOP)
    other = start(tmp_path, SOON)
    _, errors = other.communicate(timeout=300)
    assert other.returncode == 0, errors
    asleep.send_signal(signal.SIGCONT)
    assert asleep.wait(timeout=300) == 0
    assert len(lines(tmp_path)) == 32


def test_one_that_has_nothing_to_do_waits_and_says_so(start, tmp_path):
    first = start(tmp_path, SLOW.replace("sleep(2)", "sleep(15)"))
    until(lambda: computing(tmp_path, first))
    second = start(tmp_path, COMMAND)
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    (told,) = [line for line in errors.splitlines() if line.startswith("waiting for")]
    assert f"waiting for 8 cells that are being computed by process {first.pid} on" in told
    assert output.count("euler") >= 4 and first.wait(timeout=300) == 0
    assert len(lines(tmp_path)) == 32


def test_a_folder_that_is_removed_is_an_error(start, tmp_path):
    process = start(tmp_path / "out")
    until(lambda: finished(tmp_path / "out") >= 1)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert (
        errors.splitlines()[-1]
        == f"Error: {tmp_path / 'out'} was removed or emptied while the sweep ran"
    )
    assert not (tmp_path / "out" / "sweep.json").exists()


def test_a_folder_that_is_emptied_is_an_error(start, tmp_path):
    process = start(tmp_path)
    until(lambda: finished(tmp_path) >= 1)
    for path in tmp_path.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("was removed or emptied while the sweep ran")
