"""Lines of a sweep's folder that are torn, foreign, damaged or incomplete."""

import json
import math
import os

import pytest

from kdiff.eval.sweep.folder import SweepFolder
from small_sweeps import RMSE, SMALL, lines


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_torn_last_line_costs_that_cell_only(kdiff_sweep, tmp_path, cut):
    kdiff_sweep(tmp_path, *SMALL)
    file = tmp_path / "cells.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    kept = whole.splitlines()[:-1] + ([whole.splitlines()[-1]] if cut == 1 else [])
    before = SweepFolder(tmp_path).lines()
    assert list(before) == [json.loads(line)["key"] for line in kept]
    assert kdiff_sweep(tmp_path, *SMALL).exit_code == 0
    after = SweepFolder(tmp_path).lines()
    assert len(after) == 6 and all(after[key] == line for key, line in before.items())
    assert list(lines(tmp_path)) == list(after)  # each line whole


def a_line(key, status, **other):
    cell = {"model": {}, "sampler": "euler", "nfe": 2, "seeds": {"first": 0, "n": 2}, **other}
    return {"key": key, "status": status, "cell": cell, "metrics": {}}


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        (b"\xff\xfe", "it is not JSON"),
        (b"[]", "it is not an object"),
        (b'{"key": "k", "cell": {}}', "its cell has no model, nfe, sampler, seeds"),
        (json.dumps(a_line("k", "done")).encode(), "its status is 'done', not ok or failed"),
        (json.dumps({**a_line("k", "ok"), "metrics": None}).encode(), "it has no metrics"),
        (json.dumps(a_line("k", "ok", nfe=math.nan)).encode(), "its nfe is nan"),
        (json.dumps(a_line("k", "ok", nfe=True)).encode(), "its nfe is True"),
        (json.dumps(a_line("k", "ok", sampler=1)).encode(), "its sampler is 1"),
        (json.dumps(a_line("k", "ok", features=0.5)).encode(), "its features is 0.5"),
        (json.dumps(a_line("k", "ok", sigmas=[1, "0"])).encode(), "its sigmas are not numbers"),
        (json.dumps(a_line("k", "ok", reference={"n": "9"})).encode(), "its reference is of '9'"),
        (json.dumps(a_line("k", "ok", seeds={"first": 0, "n": 0})).encode(), "its n is 0"),
        (
            json.dumps(a_line("k", "ok", seeds={"first": 0, "n": "2"})).encode(),
            "its n is '2'",
        ),
        (
            json.dumps(a_line("k", "ok", sigmas=[math.inf, 0])).encode(),
            "it holds a number that is not finite",
        ),
        (
            json.dumps({**a_line("k", "ok"), "metrics": {"FID": {"value": "1", "n": 2}}}).encode(),
            "its FID is '1', of 2 images",
        ),
        (json.dumps({**a_line("k", "ok"), "grid": 3}).encode(), "its grid is 3"),
        (json.dumps({**a_line("k", "ok"), "environment": [1]}).encode(), "its environment is [1]"),
        (b'{"key": ' + b"[" * 100_000, "it is not JSON"),
        (b" ", None),
    ],
)
def test_what_is_no_cell_is_passed_over_and_named_unless_cut_off(tmp_path, foreign, said):
    whole = json.dumps(a_line("k", "ok")).encode()
    (tmp_path / "cells.jsonl").write_bytes(b"\n".join([whole, foreign, whole, foreign]))
    told = []
    assert list(SweepFolder(tmp_path).lines(told.append)) == ["k"]
    expected = f"{tmp_path / 'cells.jsonl'}, line 2 is passed over: {said}"
    assert len(told) == bool(said) and all(text.startswith(expected) for text in told)


def test_a_sweep_says_which_line_it_passes_over(kdiff_sweep, tmp_path):
    kdiff_sweep(tmp_path, "--steps", 2, *RMSE)
    file = tmp_path / "cells.jsonl"
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    result = kdiff_sweep(tmp_path, "--steps", 2, *RMSE, "--dry-run")
    assert "0 of 1 cells to compute" in result.stdout
    assert result.stderr == f"{file}, line 1 is passed over: it is not JSON\n"


@pytest.mark.parametrize(
    "text",
    ["{bad", "[]", '{"earlier": 1}', '{"earlier": [1]}', '{"command": [1]}', '{"a": NaN}', "\0"],
)
def test_a_damaged_record_of_commands_is_one_line_that_says_what_to_do(kdiff_sweep, tmp_path, text):
    file = tmp_path / "sweep.json"
    file.write_text(text)
    result = kdiff_sweep(tmp_path, "--steps", 2, *RMSE)
    assert result.exit_code == 2
    assert f"{file} is damaged; write {{}} into it" in result.stderr.splitlines()[-1]
    file.write_text("{}")
    assert kdiff_sweep(tmp_path, "--steps", 2, *RMSE).exit_code == 0
    assert json.loads(file.read_text())["earlier"] == []


def test_the_last_line_of_a_cell_counts_but_no_failure_after_a_success(tmp_path):
    folder = SweepFolder(tmp_path)
    for key, status in [("a", "failed"), ("a", "ok"), ("b", "ok"), ("b", "failed")]:
        folder.append(a_line(key, status))
    assert {key: line["status"] for key, line in folder.lines().items()} == {"a": "ok", "b": "ok"}


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5"])
def test_a_line_without_its_figure_is_computed_again(kdiff_sweep, tmp_path, value):
    words = ("--sampler", "euler,heun", "--steps", 2, *RMSE)
    kdiff_sweep(tmp_path, *words)
    file = tmp_path / "cells.jsonl"
    good, other = map(json.loads, file.read_text().splitlines())
    bad = {**good, "metrics": {"RMSE": {"value": value, "error": None, "n": 20}}}
    file.write_text(json.dumps(bad) + "\n" + json.dumps(other) + "\n")
    assert "1 of 2 cells to compute" in kdiff_sweep(tmp_path, *words, "--dry-run").stdout
    result = kdiff_sweep(tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert len(file.read_text().splitlines()) == 3
    again = SweepFolder(tmp_path).lines()
    assert again[good["key"]]["metrics"]["RMSE"] == good["metrics"]["RMSE"]
    assert again[other["key"]] == other


def test_a_disk_that_is_full_is_one_line(kdiff_sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda handle, data: len(data) // 2)
    result = kdiff_sweep(tmp_path, *SMALL)
    assert result.exit_code == 1 and "is the disk full?" in result.stderr
