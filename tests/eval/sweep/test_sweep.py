"""Sweeps on a tiny network: the cells that they plan, the lines and pictures that they write."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from kdiff.eval.images.from_model import every_class
from kdiff.images import to_uint8
from small_sweeps import NETWORK, RMSE, SMALL, TOY, lines

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
