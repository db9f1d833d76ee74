"""Sweeps that are called again: after a kill, they end as if it had never come."""

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

import kdiff
from kdiff.cli import main
from kdiff.eval.sweep.folder import SweepFolder
from small_sweeps import COMMAND, ENVIRONMENT, RMSE, SMALL, TOY, results


def test_what_is_finished_is_not_computed_again(kdiff_sweep, tmp_path, monkeypatch):
    kdiff_sweep(tmp_path, *SMALL)
    before = (tmp_path / "cells.jsonl").read_bytes()
    more = kdiff_sweep(tmp_path, "--sampler", "euler,heun,lms", "--steps", "2,4,5", *RMSE)
    after = (tmp_path / "cells.jsonl").read_bytes()
    assert more.exit_code == 0 and after.startswith(before)
    new = [json.loads(line)["cell"] for line in after[len(before) :].splitlines()]
    assert {(c["sampler"], c["steps"]) for c in new} == {
        *(("euler", 5), ("heun", 5), ("lms", 2), ("lms", 4), ("lms", 5)),
    }
    history = json.loads((tmp_path / "sweep.json").read_text())
    assert history["settings"]["samplers"] == "euler,heun,lms"
    assert [old["settings"]["samplers"] for old in history["earlier"]] == [SMALL[1]]

    monkeypatch.setattr(kdiff.Denoiser, "__call__", None)  # and nothing at all the second time
    assert kdiff_sweep(tmp_path, *SMALL).exit_code == 0
    assert (tmp_path / "cells.jsonl").read_bytes() == after


@pytest.mark.usefixtures("few_steps")
def test_killed_and_called_again_it_ends_as_if_never_killed(workplace, tmp_path):
    """Eight short cells, then eight of 30 steps, in which the kill comes."""
    reference = ("--features", TOY, "--ref", str(workplace / "reference.npz"))
    arguments = [
        *("sweep", "--model", str(workplace / "tiny.safetensors"), *reference, "--batch", "24"),
        *("--sampler", "euler,heun,dpmpp_2m,dpmpp_2m_sde", "--schedule", "karras,vp"),
        *("--steps", "3,30", "--num", "24", "--out"),
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, str(killed)],
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    file = killed / "cells.jsonl"
    deadline = time.monotonic() + 120
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    survived = file.read_bytes()
    finished = SweepFolder(killed).lines()
    assert 1 <= len(finished) <= 8

    for out in (killed, whole):
        result = CliRunner().invoke(main, [*arguments, str(out)])
        assert result.exit_code == 0, result.output
    assert file.read_bytes().startswith(survived)
    again = SweepFolder(killed).lines()
    assert all(again[key]["finished"] == line["finished"] for key, line in finished.items())
    assert len(again) == 16 and results(killed) == results(whole)
    assert not list(whole.rglob(".*"))  # a kill amid a picture leaves its temporary file


def test_the_same_command_again_is_recorded_once(kdiff_sweep, tmp_path):
    words = ("--sampler", "ddim", "--steps", 2, "--option", "eta=0.5", "--metrics", "none")
    (tmp_path / ".hidden").touch()
    for _ in range(2):
        assert kdiff_sweep(tmp_path, *words).exit_code == 0
    assert json.loads((tmp_path / "sweep.json").read_text())["earlier"] == []
