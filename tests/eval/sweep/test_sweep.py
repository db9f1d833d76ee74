"""Sweeps on a tiny network: cells, keys, lines, and what survives a kill, a failure or a split."""

import dataclasses
import errno
import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from kdiff.cli.sweep_progress import Progress
from kdiff.eval import sweep
from kdiff.eval.evaluation import METRICS, Metric
from kdiff.eval.features import Features, feature_network
from kdiff.eval.images.from_model import every_class
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.cell import Judge, ModelSpec
from kdiff.eval.sweep.folder import SweepFolder
from kdiff.eval.sweep.partial_cells import Portion, Unfinished
from kdiff.eval.sweep.turns import groups
from kdiff.images import to_uint8
from kdiff.models import sha256
from small_sweeps import (
    COMMAND,
    ENVIRONMENT,
    NETWORK,
    STEPS,
    TOY,
    lines,
    results,
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("kdiff.eval.sweep.converged_solution.STEPS", STEPS)


RMSE = ("--metrics", "rmse")
SMALL = ("--sampler", "euler,heun,euler_ancestral", "--steps", "2,4", *RMSE)


# --- what a sweep writes ---


def test_a_sweep_writes_a_line_a_cell_and_its_pictures(kdiff_sweep, workplace, tmp_path):
    out = tmp_path / "out"
    reference = ("--features", TOY, "--ref", workplace / "reference.npz")
    result = kdiff_sweep(out, "--sampler", "heun,euler a", "--nfe", "5,9", *reference)
    assert result.exit_code == 0, result.output
    found = list(lines(out).values())
    assert {(c["cell"]["sampler"], c["cell"]["steps"], c["cell"]["nfe"]) for c in found} == {
        *(("heun", 3, 5), ("heun", 5, 9)),
        *(("euler_ancestral", 5, 5), ("euler_ancestral", 9, 9)),
    }
    fid = f"FD ({TOY})"
    for line in found:
        assert (line["status"], line["error"]) == ("ok", None)
        assert line["metrics"][fid]["n"] == line["metrics"]["seconds"]["n"] == 20
        assert 0 < line["noise_floor"][fid] < line["metrics"][fid]["value"]
        assert line["cell"]["features"]["name"] == TOY
        assert line["cell"]["reference"]["name"] == "reference.npz"
        assert line["cell"]["class_labels"] == "in turn"
        assert line["environment"]["torch"] == torch.__version__
        with Image.open(out / line["grid"]) as picture:
            assert picture.size == (4 * 10 + 2, 4 * 10 + 2)
        ode = line["cell"]["sampler"] == "heun"
        assert line["cell"]["metrics"] == ([fid, "RMSE"] if ode else [fid])
        assert ("RMSE" in line["metrics"]) == ode == (line["converged"] is not None)
    (command,) = [json.loads((out / "sweep.json").read_text())]
    assert command["settings"]["samplers"] == "heun,euler a" and command["earlier"] == []
    assert f"kdiff report {out}" in result.stdout and "euler_ancestral" in result.stdout


def test_figures_are_those_of_kdiff_sample_alone(kdiff_sweep, workplace, tmp_path, monkeypatch):
    monkeypatch.setattr("kdiff.eval.sweep.converged_solution.STEPS", 128)
    out = tmp_path / "out"
    kdiff_sweep(out, *SMALL, "--first-seed", 7)
    model = kdiff.load(workplace / "tiny.safetensors")
    labels = [i % 3 for i in range(20)]

    def alone(sampler, steps):
        return kdiff.sample(
            model, sampler, steps=steps, n=20, seed=7, batch=16, class_labels=labels
        )

    target = alone("dpmpp_3m", 200)
    for line in lines(out).values():
        x = alone(line["cell"]["sampler"], line["cell"]["steps"])
        pictures = to_uint8(x)[:16]
        with Image.open(out / line["grid"]) as image:
            grid = np.asarray(image)
        tiles = [grid[2 + 10 * r :, 2 + 10 * c :][:8, :8] for r in range(4) for c in range(4)]
        assert np.array_equal(np.stack(tiles), pictures)
        if line["cell"]["sampler"] != "euler_ancestral":
            each = (x - target).square().mean((1, 2, 3)).sqrt()
            figure = line["metrics"]["RMSE"]
            assert figure["value"] == pytest.approx(float(each.mean()), rel=1e-3)
            assert figure["error"] == pytest.approx(float(each.std() / 20**0.5), rel=1e-2)
            assert line["converged"]["error"] < 1e-2 * figure["value"]


def test_fewer_images_than_classes_are_of_classes_from_all_over(kdiff_sweep, workplace, tmp_path):
    model = kdiff.load(workplace / "tiny.safetensors")
    assert every_class(model, 3) == ([0, 1, 2], "in turn")
    model.classes = [str(i) for i in range(1000)]
    labels, how = every_class(model, 400)
    assert how == "spread" and len(set(labels)) == 400 and set(np.diff(labels)) == {2, 3}
    assert every_class(model, 1001)[0] == [*range(1000), 0]
    assert kdiff_sweep(tmp_path, "--steps", 2, "--num", 2, *RMSE).exit_code == 0
    (line,) = lines(tmp_path).values()
    assert line["cell"]["class_labels"] == "spread"


def test_only_the_first_64_seeds_are_compared(kdiff_sweep, tmp_path):
    kdiff_sweep(tmp_path, "--sampler", "euler", "--steps", 2, *RMSE, "--num", 70)
    (line,) = lines(tmp_path).values()
    assert line["metrics"]["RMSE"]["n"] == 64 and line["metrics"]["seconds"]["n"] == 70


def test_repeats_differ_in_their_seeds_only(kdiff_sweep, tmp_path):
    kdiff_sweep(tmp_path, "--steps", 3, *RMSE, "--first-seed", "0,20,40")
    found = [line["cell"] for line in lines(tmp_path).values()]
    assert sorted(c["seeds"]["first"] for c in found) == [0, 20, 40]
    assert len({json.dumps({**c, "seeds": 0}) for c in found}) == 1


def test_a_model_without_classes_and_no_metrics_at_all(workplace, tmp_path):
    config = {
        "network": {"name": "song_unet", **NETWORK},
        "precond": {"name": "edm", "sigma_data": 0.5},
        "shape": [3, 8, 8],
    }
    network = native.NETWORKS["song_unet"](**NETWORK)
    native.save(tmp_path / "plain.safetensors", network.state_dict(), config)
    arguments = ("--model", tmp_path / "plain.safetensors", "--metrics", "none", "--num", 2)
    words = ["sweep", *arguments, "--steps", 2, "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    (line,) = lines(tmp_path / "out").values()
    assert line["cell"]["class_labels"] is None and list(line["metrics"]) == ["seconds"]


def test_two_feature_networks_look_at_images_that_are_computed_once(
    kdiff_sweep, tmp_path, monkeypatch
):
    real = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", real)
    few = "small_sweeps:few_features"
    cells = ("--sampler", "euler,dpmpp_2m,euler_ancestral", "--steps", 4, "--metrics", "fid")
    asked = []
    call = kdiff.Denoiser.__call__
    monkeypatch.setattr(
        kdiff.Denoiser,
        "__call__",
        lambda self, x, s, **cond: asked.append(s) or call(self, x, s, **cond),
    )

    def judged_by(out, features):
        asked.clear()
        ref = tmp_path / "real.npz"
        result = kdiff_sweep(tmp_path / out, *cells, "--ref", ref, "--features", features)
        assert result.exit_code == 0, result.output
        return len(asked), result.output

    alone, _ = judged_by("apart", TOY)
    judged_by("apart", few)
    together, output = judged_by("together", f"{TOY},{few},{TOY}")
    assert together == alone and results(tmp_path / "together") == results(tmp_path / "apart")
    table = [line.split() for line in output.splitlines() if " karras " in line]
    assert len(table) == 3 and all(len(row) == 7 for row in table)  # and seconds

    ref = ("--ref", tmp_path / "real.npz", "--features", f"{TOY},{few}")
    result = kdiff_sweep(tmp_path / "is", *cells[:4], *ref, "--metrics", f"rmse,fid,is@{few}")
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.output.splitlines() if " karras " in line]
    assert [len(row) for row in table] == [9, 9, 8]  # the last, which adds noise, has no RMSE
    otherwise = f"is@{few},fid,fid@{few},rmse"
    again = kdiff_sweep(tmp_path / "is", *cells[:4], *ref, "--metrics", otherwise)
    assert again.exit_code == 0 and len(lines(tmp_path / "is")) == 6
    found = [set(line["metrics"]) for line in lines(tmp_path / "is").values()]
    assert found.count({"seconds", f"FD ({TOY})"}) == 1  # of the sampler that adds noise
    assert found.count({"seconds", f"FD ({TOY})", "RMSE"}) == 2
    assert found.count({"seconds", f"FD ({few})", f"IS ({few})"}) == 1
    assert found.count({"seconds", f"FD ({few})", f"IS ({few})", "RMSE"}) == 2
    for nobody in ("inception", ""):
        result = kdiff_sweep(tmp_path / "is", *ref, "--metrics", f"fid,is@{nobody}")
        assert result.exit_code == 2 and f"{nobody!r} is none of --features" in result.stderr


def test_the_networks_that_look_at_the_same_images_are_in_one_shard_and_one_group(cells_of_two):
    shards = [sweep.of_shard(cells_of_two, (i, 3)) for i in (1, 2, 3)]
    assert sorted(cell.key for shard in shards for cell in shard) == sorted(
        cell.key for cell in cells_of_two
    )
    for parts in (shards, list(groups(sweep.of_shard(cells_of_two, None)))):
        images = [{cell.images for cell in part} for part in parts]
        assert sum(map(len, images)) == len(set().union(*images)) == 7
        assert all(len(part) == 2 * len(own) <= 8 for part, own in zip(parts, images, strict=True))


@pytest.fixture
def cells_of_two(workplace):
    """Seven sets of images, of which two networks have different metrics."""
    path = workplace / "tiny.safetensors"
    return sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["euler", "euler_ancestral", "heun"],
        sizes=[{"steps": n} for n in (3, 4, 5)],
        n=20,
        judges=[
            Judge(("fid", "rmse"), feature_network(TOY)),
            Judge(("fid", "is"), feature_network("small_sweeps:few_features")),
        ],
    )[:14]


def test_the_closing_table_tells_its_rows_apart(kdiff_sweep, workplace, tmp_path):
    both = f"{workplace / 'tiny.safetensors'},mnist"
    options = ("--option", "eta=0", "--option", "eta=0.5", "--first-seed", "0,20")
    words = ("--model", both, "--sampler", "ddim", "--steps", 2, "--metrics", "none", *options)
    result = kdiff_sweep(tmp_path, *words)
    assert result.exit_code == 0, result.output
    head, *rows = result.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["model", "seeds", "sampler", "schedule", "steps", "NFE", "seconds"]
    assert len({row.rsplit(maxsplit=1)[0] for row in rows}) == 8
    assert rows[-1].split()[:6] == ["mnist", "from", "20", "ddim", "(eta=0.5)", "karras"]


def test_the_resize_mode_is_inceptions_where_it_is_among_several(tmp_path):
    words = ["sweep", "--metrics", "fid", "--steps", "2", "--out", str(tmp_path), "--dry-run"]
    words += ["--resize", "clean", "--features"]
    result = CliRunner().invoke(main, [*words, "cifar10-classifier,inception"])
    assert result.exit_code == 0 and "2 of 2 cells to compute" in result.output, result.output
    result = CliRunner().invoke(main, [*words, "cifar10-classifier"])
    assert result.exit_code == 2 and "--resize and --weights are for inception" in result.output


# --- keys ---


@pytest.fixture(scope="module")
def cell(workplace):
    path = workplace / "tiny.safetensors"
    (only,) = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["heun"],
        sizes=[{"steps": 4}],
        n=20,
        judges=[Judge(("fid", "rmse"), feature_network(TOY))],
    )
    return only


def test_a_key_is_the_same_in_every_process(cell):
    canonical = b'{"model": {"name": "m", "sha256": "0"}, "steps": 1}'
    other = dataclasses.replace(cell)
    other.__dict__["record"] = {"steps": 1, "model": {"sha256": "0", "name": "m"}}
    assert other.key == hashlib.sha256(canonical).hexdigest()[:16]
    assert cell.key == dataclasses.replace(cell).key


def test_a_key_changes_with_everything_that_determines_the_result(cell):
    def with_plan(**arguments):
        settings = {"steps": 4, **arguments}
        return dataclasses.replace(cell, plan=kdiff.plan(None, "heun", **settings))

    def with_model(**changes):
        return dataclasses.replace(cell, model=dataclasses.replace(cell.model, **changes))

    others = [
        with_model(sha256="0"),
        with_model(name="other"),
        with_plan(steps=5),
        with_plan(schedule="exponential"),
        with_plan(final="sigma_min"),
        with_plan(sigma_max=79.0),
        with_plan(rho=6.0),
        with_plan(options={"S_churn": 1}),
        dataclasses.replace(cell, plan=kdiff.plan(None, "dpm_2", steps=4)),
        dataclasses.replace(cell, seeds=range(1, 21)),
        dataclasses.replace(cell, seeds=range(21)),
        dataclasses.replace(cell, class_labels=None),
        dataclasses.replace(cell, dtype="bfloat16"),
        dataclasses.replace(cell, deterministic=True),
        dataclasses.replace(cell, metrics=("fid",)),
        dataclasses.replace(cell, network=dataclasses.replace(cell.network, weights="1")),
        dataclasses.replace(cell, network=dataclasses.replace(cell.network, resize="clean")),
    ]
    keys = [other.key for other in others]
    assert len({cell.key, *keys}) == 1 + len(others)
    assert cell.key == with_plan().key == with_plan(options={"S_churn": 0.0}).key


def test_one_cell_by_two_names_is_one_cell(workplace):
    path = workplace / "tiny.safetensors"
    cells = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["heun", "HeunDiscreteScheduler", "DPM++ 2M", "DPM++ 2M Karras"],
        sizes=[{"nfe": 5}, {"nfe": 6}],  # Heun makes three steps of either
        n=2,
        judges=[Judge(())],
    )
    found = [(c.plan.sampler.name, c.plan.steps) for c in cells]
    assert found == [("heun", 3), ("dpmpp_2m", 5), ("dpmpp_2m", 6)]


def test_options_go_to_the_samplers_that_have_them(workplace):
    path = workplace / "tiny.safetensors"
    cells = sweep.expand(
        [ModelSpec("tiny", path, sha256(path))],
        ["euler", "ddim", "euler_ancestral"],
        sizes=[{"steps": 2}],
        options={"ETA": ["0", "0.5"]},
        n=2,
        judges=[Judge(("rmse",))],
    )
    found = [(c.plan.sampler.name, c.plan.options.get("eta"), c.metrics) for c in cells]
    assert found == [
        ("euler", None, ("rmse",)),
        *(("ddim", 0.0, ("rmse",)), ("ddim", 0.5, ())),
        *(("euler_ancestral", 0.0, ("rmse",)), ("euler_ancestral", 0.5, ())),
    ]


# --- going on ---


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


class Stopped:
    """Denoisers count the images they see, and are interrupted after `most` of them."""

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


# Batches of 16, the last of 8. Of each, Heun computes 5 answers and Euler-a 2 of its own.
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
    """At the first evaluation it has those of three batches: Heun 5 of an image, Euler-a 3."""
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
    size = 8 + int.from_bytes(data[:8], "little")  # of its head
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
    """LMS, which the stopped sweep had not, has one of its three questions in common with Heun."""
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


# --- failing cells ---


@pytest.fixture
def breaks_at_four_steps(monkeypatch):
    """A model that is not finite at one noise level of the four-step grid, until mended."""
    broken = {kdiff.schedule("karras", 4)[2]}
    call = kdiff.Denoiser.__call__

    def breaking(self, x, s, **cond):
        return call(self, x, s, **cond) * (float("nan") if s in broken else 1.0)

    monkeypatch.setattr(kdiff.Denoiser, "__call__", breaking)
    return broken.clear


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


def test_the_same_command_again_is_recorded_once(kdiff_sweep, tmp_path):
    words = ("--sampler", "ddim", "--steps", 2, "--option", "eta=0.5", "--metrics", "none")
    (tmp_path / ".hidden").touch()
    for _ in range(2):
        assert kdiff_sweep(tmp_path, *words).exit_code == 0
    assert json.loads((tmp_path / "sweep.json").read_text())["earlier"] == []


# --- splitting ---


def test_shards_together_are_the_whole(kdiff_sweep, tmp_path):
    split, whole = tmp_path / "split", tmp_path / "whole"
    for i in (3, 1, 2):
        assert kdiff_sweep(split, *SMALL, "--shard", f"{i}/3").exit_code == 0
        assert len((split / f"cells-{i}-of-3.jsonl").read_text().splitlines()) == 2
    kdiff_sweep(whole, *SMALL)
    assert results(split) == results(whole) and len(results(whole)) == 6
    kdiff_sweep(split, *SMALL)  # knows what the shards have done
    assert not (split / "cells.jsonl").exists()


def test_processes_share_the_images_of_a_cell(workplace, tmp_path):
    """Two under gloo, with an uneven number of batches, against one."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [
        *("sweep", "--model", str(workplace / "tiny.safetensors"), "--features", TOY),
        *("--ref", str(workplace / "reference.npz"), "--sampler", "heun,euler a", "--steps", "3"),
        *("--num", "42", "--batch", "8", "--out"),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **ENVIRONMENT,
        **{"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words, str(two)],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == b""
    assert CliRunner().invoke(main, [*words, str(one)]).exit_code == 0
    alone, together = results(one), results(two)
    assert alone.keys() == together.keys() and len(alone) == 2
    for key, (cell, status, metrics, floor, picture) in alone.items():
        assert together[key][:2] == (cell, status) and together[key][3:] == (floor, picture)
        for name, figure in metrics.items():
            assert together[key][2][name] == pytest.approx(figure, rel=1e-9)


# --- before anything is computed ---


def test_a_dry_run_writes_nothing_and_counts(kdiff_sweep, tmp_path):
    out = tmp_path / "out"
    result = kdiff_sweep(out, *SMALL, "--dry-run")
    assert result.exit_code == 0 and not out.exists()
    total = (2 + 4) + (3 + 7) + (2 + 4)
    assert f"6 of 6 cells to compute (+): NFE {total}, for 20 images each" in result.stdout
    kdiff_sweep(out, "--sampler", "heun", "--steps", "2,4", *RMSE)
    result = kdiff_sweep(out, *SMALL, "--dry-run")
    assert f"4 of 6 cells to compute (+): NFE {total - 10}" in result.stdout
    assert sum(line.startswith("+") for line in result.stdout.splitlines()) == 4


def test_a_file_says_the_same_as_the_command_line(kdiff_sweep, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "sampler: [euler, ddim]\nsteps: [2, 4]\nschedule: karras\nmetrics: none\n"
        "option:\n  eta: [0, 0.5]\nfirst-seed: 5\ndeterministic: true\n"
    )
    words = ("--sampler", "euler,ddim", "--steps", "2,4", "--schedule", "karras")
    words += ("--metrics", "none", "--option", "eta=0,0.5", "--first-seed", 5, "--deterministic")
    from_words = kdiff_sweep(tmp_path / "out", *words, "--dry-run").stdout
    assert from_words.startswith("+") and "6 of 6 cells" in from_words
    assert kdiff_sweep(tmp_path / "out", "--file", file, "--dry-run").stdout == from_words
    fewer = kdiff_sweep(tmp_path / "out", "--file", file, "--dry-run", "--steps", 2).stdout
    assert "3 of 3 cells" in fewer


def test_metrics_are_known_whatever_their_case(kdiff_sweep, tmp_path):
    written = [
        kdiff_sweep(tmp_path / "out", "--steps", 2, "--dry-run", "--metrics", name).stdout
        for name in ("rmse", "RMSE", "none", "None")
    ]
    assert written[0] == written[1] != written[2] == written[3]


def test_a_reference_of_another_dimension_is_refused_before_sampling(kdiff_sweep, tmp_path):
    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    judging = ("--metrics", "fid", "--features", TOY, "--ref", tmp_path / "other.npz")
    result = kdiff_sweep(tmp_path / "out", *judging)
    assert result.exit_code == 2 and "24" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_network_that_fails_is_one_line_before_sampling(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", "math:sqrt", "--ref", workplace / "reference.npz")
    result = kdiff_sweep(tmp_path / "out", *judging)
    assert result.exit_code == 2 and "TypeError" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_judged_is_known_before_sampling(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", "cifar10-classifier", "--metrics", "fid", "--num", 4)
    result = kdiff_sweep(tmp_path / "out", "--model", "cifar10,mnist", *judging)
    assert result.exit_code == 2 and "mnist: " in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_single_image_is_refused_where_a_metric_needs_more(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", TOY, "--ref", workplace / "reference.npz", "--num", 1, "--steps", 2)
    result = kdiff_sweep(tmp_path / "out", *judging, "--metrics", "fid")
    assert result.exit_code == 2 and "fid needs at least 2 images" in result.stderr
    assert not (tmp_path / "out").exists()
    assert kdiff_sweep(tmp_path / "out", *judging, *RMSE).exit_code == 0


BAD = {
    **{
        f"empty {option}": ([f"--{option}", text], f"--{option} takes")
        for option in ("model", "sampler", "steps", "nfe", "schedule", "first-seed", "metrics")
        for text in ("", " , ")
    },
    "option of nothing": (["--option", "eta=,"], "--option eta takes"),
    "unknown sampler": (["--sampler", "euler,hoin"], "did you mean heun"),
    "unknown schedule": (["--schedule", "karas"], "did you mean karras"),
    "unknown metric": (["--metrics", "rmes"], "unknown metric 'rmes'; did you mean rmse"),
    "rmse of a network": (["--metrics", "rmse@inception"], "leave out @inception"),
    "option of none": (
        ["--sampler", "euler,heun", "--option", "eta=1"],
        "option of these samplers",
    ),
    "option out of range": (["--sampler", "ddim", "--option", "eta=0,2"], "from 0 to 1, not '2'"),
    "option without value": (["--option", "eta"], "KEY=VALUE"),
    "no steps": (["--steps", "0,5"], "steps must be a whole number, at least 1"),
    "steps of words": (["--steps", "5,ten"], "--steps takes whole numbers such as 5,10,20"),
    "steps and nfe": (["--steps", "5", "--nfe", "5"], "only one of --steps and --nfe"),
    "nfe for no step": (
        ["--sampler", "plms", "--nfe", "0"],
        "nfe of plms must be a whole number, at least 1",
    ),
    "sigmas swapped": (["--sigma-min", "90"], "sigma_min must be above 0 and below sigma_max"),
    "no images": (["--num", "0"], "0 is not in the range"),
    "shared images": (["--num", "20", "--first-seed", "0,10"], "let them be 20 apart"),
    "negative seed": (["--first-seed", "-1"], "a seed must be a whole number from 0"),
    "rmse of noise": (["--sampler", "euler_ancestral"], "all these samplers add noise"),
    "unknown model": (["--model", "nothing.pt"], "no model 'nothing.pt'"),
    "shard of none": (["--shard", "3/2"], "--shard takes I/N"),
    "shard of words": (["--shard", "first"], "--shard takes I/N"),
    "no device": (["--device", "toaster"], "no device 'toaster'"),
    "no reference": (["--metrics", "fid", "--features", TOY, "--ref", "cifra"], "no reference"),
    "no such file": (["--file", "nothing.yaml"], "does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(kdiff_sweep, case, tmp_path):
    arguments, message = BAD[case]
    out = tmp_path / "out"
    result = kdiff_sweep(out, *RMSE, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
    assert message in line and line == result.stderr.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampelr: euler\n", "unknown key 'sampelr'; did you mean sampler?"),
        ("- euler\n", "must have a line `key: value`"),
        ("a: [1\n", "is not YAML"),
        ("option: eta\n", "takes a mapping"),
        ("steps: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("final: never\n", "'never' is not one of"),
    ],
)
def test_a_bad_file_is_one_line(kdiff_sweep, tmp_path, text, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    result = kdiff_sweep(tmp_path / "out", "--file", file, *RMSE)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(kdiff_sweep, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    messages = {tmp_path: "no sweep's folder", tmp_path / "mine.txt": "is a file, not a folder"}
    for out, message in messages.items():
        result = kdiff_sweep(out, *SMALL)
        assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
