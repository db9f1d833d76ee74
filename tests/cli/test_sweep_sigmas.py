"""A sweep on one grid that is given, level by level."""

import json

import pytest

from tiny_models import kdiff_cli

FEW = ("--num", 2, "--metrics", "none")


def lines(out):
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]


def test_cells_are_of_the_grid_and_of_no_other(model, tmp_path):
    out = tmp_path / "sweep"
    for sigmas in ("20,3,0.5,0", "20,3,0.5,0", "20,4,0.5,0"):
        words = ("sweep", "--model", model, "--out", out, "--sampler", "euler,heun", *FEW)
        result = kdiff_cli(*words, "--sigmas", sigmas)
        assert result.exit_code == 0, result.output
    cells = lines(out)
    assert [line["cell"]["nfe"] for line in cells] == [3, 5, 3, 5]
    assert len({line["key"] for line in cells}) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 5), "give only one of steps, nfe and sigmas"),
        (("--schedule", "karras"), "sigmas are the whole grid: leave out schedule"),
        (("--final", "zero"), "sigmas are the whole grid: leave out final"),
        (("--rho", 5), "sigmas are the whole grid: leave out rho"),
    ],
    ids=str,
)
def test_what_the_grid_says_itself_is_one_line(words, message, model, tmp_path):
    out = tmp_path / "sweep"
    result = kdiff_cli(
        "sweep", "--model", model, "--out", out, *FEW, "--sigmas", "20,3,0", *map(str, words)
    )
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: {message}"
    assert not out.exists()
