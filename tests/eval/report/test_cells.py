"""What a report reads of a sweep: repeats, shards, and lines that are passed over."""

import json

import numpy as np
import pytest

from kdiff.eval.report import Figure, make_tables, read_sweep
from small_reports import a_line, report


def test_repeats_become_a_mean_and_its_standard_error(sweep_of):
    values = [12.0, 13.0, 17.0]
    lines = [a_line(first=1000 * i, metrics={"FID": v}) for i, v in enumerate(values)]
    (result,) = sweep_of(*lines).results
    (figure,) = result.figures
    assert (figure.metric, figure.n, figure.repeats) == ("FID", 1000, 3)
    assert figure.value == pytest.approx(14.0)
    assert figure.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))


def test_one_repeat_keeps_its_own_error_and_its_own_n(sweep_of):
    rmse = {"value": 0.5, "error": None, "n": 64}
    line = a_line(metrics={"IS": {"value": 9.0, "error": 0.2, "n": 1000}, "RMSE": rmse})
    (result,) = sweep_of(line).results
    assert result.figures == [Figure("IS", 1000, 9.0, 0.2, 1), Figure("RMSE", 64, 0.5, None, 1)]


def test_the_same_seeds_evaluated_again_are_no_second_repeat(sweep_of):
    again = a_line(metrics={"FID": 12.0, "KID": 0.1})
    again["cell"]["metrics"], again["key"] = ["FID", "KID"], "another"
    (result,) = sweep_of(a_line(metrics={"FID": 12.0}), again).results
    assert [(f.metric, f.repeats) for f in result.figures] == [("FID", 1), ("KID", 1)]


def test_seeds_that_overlap_are_no_second_repeat(sweep_of):
    lines = [a_line(first=first, metrics={"FID": 10.0 + first}) for first in (0, 42, 1000)]
    sweep = sweep_of(*lines)
    (result,) = sweep.results
    assert [(f.value, f.repeats) for f in result.figures] == [(510.0, 2)]
    assert [failure.error for failure in sweep.failures] == [
        "seeds 42 to 1041 overlap with others here, and are no repeat"
    ]


def test_the_last_line_of_a_key_wins_but_no_failure_after_a_success(sweep_of):
    failed, good, again = (
        a_line(error="no memory"),
        a_line(metrics={"FID": 11.0}),
        a_line(metrics={"FID": 12.0}),
    )
    sweep = sweep_of(failed, good, again, failed)
    assert not sweep.failures
    assert sweep.results[0].figure("FID", 1000).value == 12.0


def test_cells_of_different_n_are_no_repeats_even_where_a_metric_has_one_n(sweep_of):
    rmse = {"RMSE": {"value": 0.5, "error": None, "n": 64}}
    sweep = sweep_of(a_line(metrics=rmse), a_line(first=1000, n=5000, metrics=rmse))
    assert [result.figures[0].repeats for result in sweep.results] == [1, 1]


def test_shards_are_read_together(tmp_path):
    for i, sampler in enumerate(("euler", "heun"), 1):
        line = json.dumps(a_line(sampler, metrics={"FID": 10.0 * i}))
        (tmp_path / f"cells-{i}-of-2.jsonl").write_text(line + "\n")
    assert [r.cell["sampler"] for r in read_sweep(tmp_path).results] == ["euler", "heun"]


def test_torn_lines_are_not_there_and_the_middle_one_is_named(sweep_of, tmp_path):
    whole = a_line(metrics={"FID": 12.0})
    torn = json.dumps(a_line("heun", metrics={"FID": 11.0}))[:-30]
    assert [r.cell["sampler"] for r in sweep_of(whole, tail=torn).results] == ["euler"]
    sweep_of(whole, tail=torn + "\n" + json.dumps(a_line("ddim", metrics={"FID": 9.0})) + "\n")
    result = report(tmp_path, "--format", "md")
    assert result.exit_code == 0 and "ddim" in result.stdout and "heun" not in result.stdout
    file = tmp_path / "cells.jsonl"
    assert result.stderr == f"{file}, line 2 is passed over: it is not JSON\n"


def test_a_figure_that_is_no_number_is_a_failure_and_never_the_best(sweep_of):
    broken = a_line("heun", metrics={"FID": float("nan")})
    sweep = sweep_of(a_line(metrics={"FID": 12.0}), broken)
    assert [f.error for f in sweep.failures] == ["FID is nan"]
    (table,) = make_tables(sweep)
    assert [table.text(row, 10) for row in table.rows] == ["12.00", "failed"]
