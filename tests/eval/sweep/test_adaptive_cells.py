"""Cells of an adaptive sampler: nobody knows their NFE before they have run."""

import csv
import io
import math

import numpy as np
import pytest
from click.testing import CliRunner

import adaptive_sampler
import kdiff
from kdiff.cli import main
from kdiff.cli.sweep_progress import Progress
from kdiff.eval.report import read_sweep
from kdiff.eval.sweep import SweepFolder
from kdiff.eval.sweep.partial_cells import Portion, Unfinished
from kdiff.samplers import REGISTRY
from small_sweeps import lines

SWEEP = ("--sampler", "careful,euler", "--steps", 3, "--num", 6, "--batch", 4, "--metrics", "rmse")


@pytest.fixture(autouse=True)
def _careful():
    adaptive_sampler.register()
    yield
    del REGISTRY[adaptive_sampler.NAME]


@pytest.fixture
def asked(monkeypatch):
    """The number of samples in each call of a network."""
    sizes, call = [], kdiff.Denoiser.__call__

    def counting(self, x, s, **cond):
        sizes.append(len(x))
        return call(self, x, s, **cond)

    monkeypatch.setattr(kdiff.Denoiser, "__call__", counting)
    return sizes


def counts(workplace, asked, **arguments):
    """How often the network is evaluated for each of six images, made one at a time."""
    model, taken = kdiff.load(workplace / "tiny.safetensors"), []
    for seed in range(6):
        asked.clear()
        labels = [seed % 3]
        kdiff.sample(model, "careful", steps=3, seed=seed, class_labels=labels, **arguments)
        taken.append(sum(asked))
    return taken


def test_the_line_says_what_the_run_took(kdiff_sweep, workplace, tmp_path, asked):
    result = kdiff_sweep(tmp_path, *SWEEP)
    assert result.exit_code == 0, result.output
    by_sampler = {line["cell"]["sampler"]: line for line in lines(tmp_path).values()}
    line, taken = by_sampler["careful"], counts(workplace, asked)
    assert len(set(taken)) > 1
    assert line["cell"]["nfe"] is None and line["status"] == "ok"
    assert line["nfe"] == {"mean": np.mean(taken), "most": max(taken)}
    assert "nfe" not in by_sampler["euler"]
    errors = {name: one["metrics"]["RMSE"]["value"] for name, one in by_sampler.items()}
    assert 0 < errors["careful"] < errors["euler"]
    (row,) = [text for text in result.stdout.splitlines() if text.startswith("careful")]
    assert row.split()[3] == f"{np.mean(taken):.1f}"
    again = kdiff_sweep(tmp_path, *SWEEP, "--dry-run").stdout
    assert "0 of 2 cells" in again and "3 steps, NFE adaptive" in again


def test_a_guided_one_counts_evaluations_of_the_network(kdiff_sweep, workplace, tmp_path, asked):
    result = kdiff_sweep(tmp_path, *SWEEP, "--guide", "cfg:scale=2")
    assert result.exit_code == 0, result.output
    by_sampler = {line["cell"]["sampler"]: line for line in lines(tmp_path).values()}
    taken = counts(workplace, asked, guide="cfg:scale=2")
    assert by_sampler["careful"]["nfe"] == {"mean": np.mean(taken), "most": max(taken)}
    assert by_sampler["euler"]["cell"]["nfe"] == 6


def test_the_count_survives_a_stop(kdiff_sweep, workplace, tmp_path, monkeypatch, asked):
    save = Unfinished.save

    def stopping(self, key, indices, portion):
        save(self, key, indices, portion)
        raise KeyboardInterrupt

    words = (*SWEEP, "--sampler", "careful")
    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "save", stopping)
        assert "goes on with the next batch" in kdiff_sweep(tmp_path, *words).output
    assert kdiff_sweep(tmp_path, *words).exit_code == 0
    (line,) = lines(tmp_path).values()
    taken = counts(workplace, asked)
    assert line["nfe"] == {"mean": np.mean(taken), "most": max(taken)}


def test_one_that_does_not_end_fails_and_the_sweep_goes_on(kdiff_sweep, tmp_path):
    words = (*SWEEP, "--option", "tolerance=0", "--metrics", "none")
    result = kdiff_sweep(tmp_path, *words)
    assert result.exit_code == 1 and "1 cells failed" in result.stderr
    by_sampler = {line["cell"]["sampler"]: line for line in SweepFolder(tmp_path).lines().values()}
    assert by_sampler["euler"]["status"] == "ok"
    failed = by_sampler["careful"]
    assert failed["nfe"] is None and "has not ended after 400 evaluations" in failed["error"]
    report = CliRunner().invoke(main, ["report", str(tmp_path), "--format", "md,html"])
    assert report.exit_code == 0, report.output
    assert "failed: careful, adaptive: careful has not ended" in report.stdout


def test_a_dry_run_says_that_it_does_not_know(kdiff_sweep, tmp_path):
    out = kdiff_sweep(tmp_path / "out", *SWEEP, "--dry-run").stdout
    assert "2 of 2 cells to compute (+): NFE 3, for 6 images each 18 evaluations" in out
    assert out.endswith(", and what 1 adaptive cells take, which only their runs will tell\n")


def test_the_bar_has_no_total(kdiff_sweep, tmp_path, monkeypatch):
    seen, finished = [], Progress.finished

    def watched(self, line):
        finished(self, line)
        seen.append((self.bar.total, self.done, self.images))

    monkeypatch.setattr(Progress, "finished", watched)
    kdiff_sweep(tmp_path, *SWEEP)
    assert [done for _, done, _ in seen] == [1, 2]
    assert {total for total, *_ in seen} == {None} and seen[-1][2] == pytest.approx(12)


def test_a_report_shows_the_count(kdiff_sweep, tmp_path):
    kdiff_sweep(tmp_path, *SWEEP, "--first-seed", "0,20", "--option", "tolerance=0.02")
    report = CliRunner().invoke(main, ["report", str(tmp_path), "--format", "csv,md,html"])
    assert report.exit_code == 0, report.output
    means = [line["nfe"]["mean"] for line in lines(tmp_path).values() if "nfe" in line]
    most = max(line["nfe"]["most"] for line in lines(tmp_path).values() if "nfe" in line)
    (result,) = [r for r in read_sweep(tmp_path).results if r.cell["sampler"] == "careful"]
    assert len(means) == 2 and result.nfe == pytest.approx(np.mean(means))
    column = math.ceil(np.mean(means))
    assert column != np.mean(means)  # or this test does not test what follows
    assert f"(NFE {np.mean(means):.1f})" in report.stdout and f"NFE ≤ {column}" in report.stdout
    text = (tmp_path / "report" / "tables.csv").read_text()
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["sampler"] == "careful"]
    assert {(float(row["nfe"]), int(row["nfe_most"])) for row in rows} == {(result.nfe, most)}
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{np.mean(means):.1f} on average, at most {most}" in page


def test_counts_are_kept_with_a_batch(tmp_path):
    unfinished = Unfinished(tmp_path, {"torch": "1"})
    samples, taken = np.zeros((2, 3), np.float32), np.array([7, 9])
    unfinished.save("key", range(2), Portion(None, samples, 0.1, taken))
    kept = unfinished.load("key", range(2))
    assert kept.features is None and kept.evaluations.tolist() == [7, 9]
