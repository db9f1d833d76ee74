"""Cells that fail: they are recorded, and the sweep goes on."""

from kdiff.eval.evaluation import METRICS, Metric
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.folder import SweepFolder
from small_sweeps import RMSE, SMALL, TOY


def test_a_failing_cell_is_recorded_and_the_sweep_goes_on(
    kdiff_sweep, tmp_path, breaks_at_four_steps
):
    result = kdiff_sweep(tmp_path, *SMALL)
    assert result.exit_code == 1 and "3 cells failed; --retry computes them again" in result.stderr
    found = SweepFolder(tmp_path).lines().values()
    for line in found:
        good = line["cell"]["steps"] == 2
        assert line["status"] == ("ok" if good else "failed")
        assert (line["error"] is None) == bool(line["metrics"]) == bool(line["grid"]) == good
        if not good:
            assert "not finite in step" in line["error"] and "\n" not in line["error"]

    breaks_at_four_steps()  # mends it
    text = (tmp_path / "cells.jsonl").read_bytes()
    assert kdiff_sweep(tmp_path, *SMALL).exit_code == 1
    assert (tmp_path / "cells.jsonl").read_bytes() == text
    retried = kdiff_sweep(tmp_path, *SMALL, "--retry")
    assert retried.exit_code == 0, retried.output
    assert (tmp_path / "cells.jsonl").read_bytes().startswith(text)
    assert {line["status"] for line in SweepFolder(tmp_path).lines().values()} == {"ok"}


def test_a_failed_cell_is_in_the_table_even_if_all_failed(
    kdiff_sweep, tmp_path, breaks_at_four_steps
):
    result = kdiff_sweep(tmp_path, "--sampler", "euler", "--steps", 4, *RMSE)
    assert result.exit_code == 1
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("euler")]
    assert row.split() == ["euler", "karras", "4", "4", "failed"]


def test_a_metric_that_fails_fails_its_cell_only(kdiff_sweep, tmp_path, monkeypatch):
    solve = converged.cached

    def failing(folder, determines, model, course, *arguments, **others):
        if course.sigma_max == 40:
            raise RuntimeError("no room\nat all")
        return solve(folder, determines, model, course, *arguments, **others)

    monkeypatch.setattr(converged, "cached", failing)
    kdiff_sweep(tmp_path, "--steps", 2, *RMSE)
    kdiff_sweep(tmp_path, "--steps", 2, *RMSE, "--sigma-max", 40)
    found = {
        line["cell"]["sigmas"][0]: (line["status"], line["error"])
        for line in SweepFolder(tmp_path).lines().values()
    }
    assert found == {80.0: ("ok", None), 40.0: ("failed", "RuntimeError: no room")}


def test_a_figure_that_is_no_number_fails_its_cell_only(
    kdiff_sweep, workplace, tmp_path, monkeypatch
):
    nowhere = Metric("NOWHERE", "", "pool", "", lambda groups, _: [(float("nan"), None)])
    monkeypatch.setitem(METRICS, "nowhere", nowhere)
    reference = ("--features", TOY, "--ref", workplace / "reference.npz")
    result = kdiff_sweep(tmp_path, "--steps", "2,4", *reference, "--metrics", "nowhere")
    assert result.exit_code == 1 and "2 cells failed" in result.stderr
    errors = {line["error"] for line in SweepFolder(tmp_path).lines().values()}
    assert errors == {"nowhere is nan, with an error of None"}
