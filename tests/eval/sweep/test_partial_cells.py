"""Sweeps that were stopped within a cell: they go on with the next batch."""

import dataclasses
import errno
import math

import numpy as np
import pytest
from safetensors.numpy import save

import kdiff
from kdiff.cli.sweep_progress import Progress
from kdiff.eval.features import Features
from kdiff.eval.sweep.partial_cells import Portion, Unfinished
from small_sweeps import SMALL, TOY, lines, results


class Stopped:
    """Denoisers count the images that they see, and are interrupted after `most` of them."""

    def __init__(self, monkeypatch):
        self.images, self.most = 0, math.inf
        honest = kdiff.Denoiser.__call__

        def counting(model, x, *arguments, **cond):
            if self.images >= self.most:
                raise KeyboardInterrupt
            self.images += len(x)
            return honest(model, x, *arguments, **cond)

        monkeypatch.setattr(kdiff.Denoiser, "__call__", counting)

    def during(self, call, *arguments):
        """How many images a call makes them see."""
        self.images, self.most = 0, math.inf
        result = call(*arguments)
        return self.images, result


# Batches of 16, the last of 8. In each, Heun computes 5 answers and Euler-a 2 of its own.
TWO_CELLS = ("--sampler", "heun,euler a", "--steps", "3", "--num", "88")
A_BATCH = 16 * (5 + 2)


@pytest.fixture
def two_cells(kdiff_sweep, workplace):
    """A function that calls a sweep of two cells."""
    reference = ("--features", TOY, "--ref", workplace / "reference.npz", "--metrics", "fid,rmse")
    return lambda out, *more: kdiff_sweep(out, *TWO_CELLS, *reference, *more)


@pytest.fixture
def counter(monkeypatch):
    return Stopped(monkeypatch)


@pytest.fixture
def stopped(two_cells, counter, tmp_path):
    """The folder of a sweep that was stopped in its fourth batch."""
    counter.most = 3 * A_BATCH + 1
    interrupted = two_cells(tmp_path / "stopped")
    assert interrupted.exit_code == 1
    assert "goes on with the next batch: 0 cells in" in interrupted.output
    return tmp_path / "stopped"


def test_stopped_within_a_group_it_computes_the_rest_only(stopped, two_cells, counter, tmp_path):
    files = list((stopped / "unfinished").glob("*/*"))
    assert not lines(stopped) and len(files) == 3 * 2
    rest, result = counter.during(two_cells, stopped)
    whole, _ = counter.during(two_cells, tmp_path / "whole")
    assert result.exit_code == 0 and rest == whole - 3 * A_BATCH
    assert results(stopped) == results(tmp_path / "whole") and len(results(stopped)) == 2
    assert not (stopped / "unfinished").exists()


def test_the_bar_goes_on_where_it_was(stopped, two_cells, counter, monkeypatch):
    """It begins with three batches: 5 evaluations of an image by Heun, 3 by Euler-a."""
    counted, watch = [], Progress.watch

    def watched(self, cell, state):
        counted.append(sum(self.counted.values()))
        watch(self, cell, state)

    monkeypatch.setattr(Progress, "watch", watched)
    counter.during(two_cells, stopped)
    assert counted[0] == 3 * 16 * (5 + 3) and counted[-1] == 88 * (5 + 3)


def test_a_full_disk_is_one_line_that_says_where(two_cells, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Unfinished, "save", full)
    result = two_cells(tmp_path)
    assert result.exit_code == 1
    assert f"Error: {tmp_path}: No space left on device" in result.output


def test_the_seconds_of_the_stopped_call_count_too(stopped, two_cells, counter, monkeypatch):
    load = Unfinished.load

    def slow(self, key, indices):
        portion = load(self, key, indices)
        return portion and dataclasses.replace(portion, seconds=1000.0)

    monkeypatch.setattr(Unfinished, "load", slow)
    counter.during(two_cells, stopped)
    assert len(lines(stopped)) == 2
    for line in lines(stopped).values():
        assert 3000 < line["metrics"]["seconds"]["value"] < 4000


def damaged(data):
    """Every way in which a file of the first batch is not what was written."""
    size = 8 + int.from_bytes(data[:8], "little")  # the length of its head
    yield from (b"", data[:-1], data[:size] + bytes(len(data) - size))
    yield save({"samples": np.zeros((16, 3, 8, 8), np.float32)})
    yield save({"what": np.zeros(3)}, {"seconds": "1"})


@pytest.mark.parametrize("kind", range(5))
def test_a_damaged_file_is_computed_again(kind, stopped, two_cells, counter, tmp_path):
    first, other = (stopped / "unfinished").glob("*/0-15.safetensors")
    for file in (first, other):
        file.write_bytes(list(damaged(file.read_bytes()))[kind])
    rest, result = counter.during(two_cells, stopped)
    whole, _ = counter.during(two_cells, tmp_path / "whole")
    assert result.exit_code == 0 and rest == whole - 2 * A_BATCH
    assert results(stopped) == results(tmp_path / "whole")


def test_nothing_is_gone_on_with_in_another_environment(
    stopped, two_cells, counter, tmp_path, monkeypatch
):
    monkeypatch.setattr("kdiff.eval.sweep.running.environment", lambda device: {"torch": "another"})
    rest, result = counter.during(two_cells, stopped)
    whole, _ = counter.during(two_cells, tmp_path / "whole")
    assert result.exit_code == 0 and rest == whole
    assert not (stopped / "unfinished").exists()


def test_a_cell_goes_on_with_other_cells_beside_it(stopped, two_cells, counter, tmp_path):
    """LMS was not in the stopped sweep; one of its three questions is one of Heun's."""
    three = ("--sampler", "heun,euler a,lms")
    rest, result = counter.during(two_cells, stopped, *three)
    whole, _ = counter.during(two_cells, tmp_path / "whole", *three)
    assert result.exit_code == 0 and rest == whole - 3 * A_BATCH + 3 * 16 * (3 - 2)
    assert results(stopped) == results(tmp_path / "whole") and len(results(stopped)) == 3


@pytest.fixture
def used(monkeypatch):
    """The files of unfinished cells that a sweep goes on from."""
    files, load = set(), Unfinished.load

    def watched(self, key, indices):
        portion = load(self, key, indices)
        if portion is not None:
            files.add(self.path(key, indices))
        return portion

    monkeypatch.setattr(Unfinished, "load", watched)
    return files


def test_a_failing_cell_costs_nothing_but_itself(
    two_cells, tmp_path, breaks_at_four_steps, counter, used
):
    counter.most = 500
    assert "the next batch" in two_cells(tmp_path, "--steps", "3,4").output
    kept = set((tmp_path / "unfinished").glob("*/*.safetensors"))
    counter.most = math.inf
    assert "2 cells failed" in two_cells(tmp_path, "--steps", "3,4").output
    assert used == kept and len(kept) > 2


def test_a_stopped_retry_goes_on_too(two_cells, tmp_path, breaks_at_four_steps, counter, used):
    two_cells(tmp_path, "--steps", "4")
    breaks_at_four_steps()
    counter.images, counter.most = 0, 500
    assert "the next batch" in two_cells(tmp_path, "--steps", "4", "--retry").output
    kept = set((tmp_path / "unfinished").glob("*/*.safetensors"))
    counter.most = math.inf
    assert two_cells(tmp_path, "--steps", "4", "--retry").exit_code == 0
    assert used == kept and len(kept) > 2


def test_what_a_batch_adds_is_kept_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(5, d)).astype(np.float32) for d in (4, 3, 2)]
    strided = rng.normal(size=(5, 3, 4)).astype(np.float32)[:, 0]
    unfinished = Unfinished(tmp_path, {"torch": "1"})
    for features in (
        *(None, Features(rows[0]), Features(*rows), Features(rows[0], spatial=rows[2])),
        *(Features(strided), Features(rows[0].T.copy().T), Features(rows[0][::-1])),
    ):
        for samples in (rng.normal(size=(5, 3, 2, 2)), np.empty((0, 3, 2, 2), np.float32)):
            unfinished.save("key", range(3, 8), Portion(features, samples, 0.1))
            kept = unfinished.load("key", range(3, 8))
            np.testing.assert_array_equal(kept.samples, samples)
            assert kept.samples.dtype == samples.dtype and kept.seconds == 0.1
            if features is None:
                assert kept.features is None
                continue
            for one, other in zip(kept.features, features, strict=True):
                assert (one is None) == (other is None)
                if other is not None:
                    np.testing.assert_array_equal(one, other)
    assert unfinished.load("key", range(3, 7)) is None
    assert unfinished.load("other", range(3, 8)) is None


def test_what_a_kill_left_of_finished_cells_is_removed(kdiff_sweep, tmp_path):
    kdiff_sweep(tmp_path, *SMALL)
    for key in (*lines(tmp_path), "of another call"):
        Unfinished(tmp_path, {}).save(key, range(16), Portion(None, np.empty((0, 3)), 0.0))
    kdiff_sweep(tmp_path, *SMALL)
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == ["of another call"]
