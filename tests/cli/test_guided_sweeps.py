"""Guidance in sweeps: an axis, cells that equal `kdiff sample`, keys, and what a cell takes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import kdiff
import toy_guidance
from guided_runs import few, sample
from kdiff.cli.run_record import Taken
from kdiff.samplers import REGISTRY, Ask, sampler
from tiny_models import kdiff_cli

NONE = ("--metrics", "none")


def cells(out):
    lines = map(json.loads, (out / "cells.jsonl").read_text().splitlines())
    return sorted(lines, key=lambda line: json.dumps(line["cell"]["guidance"]))


def tiles(line, out):
    """The pictures of a cell of four images."""
    grid = np.asarray(Image.open(out / line["grid"]))
    return np.stack([grid[2:10, 2 + 10 * i :][:, :8] for i in range(4)])


def test_a_cell_with_guides_and_a_negative_class_is_the_sample_to_the_bit(model, tmp_path, toys):
    guides = ("--guide", "above:low=1", "--guide", "cfg:scale=1.5")
    words = (*guides, "--negative-label", "b,none")
    out = tmp_path / "sweep"
    result = kdiff_cli("sweep", *few(model, out), *NONE, *words, "--batch", 3)
    assert result.exit_code == 0, result.output
    (line,) = cells(out)
    record, pictures = sample(model, tmp_path / "sample", *words, "--batch", 3)
    assert np.array_equal(tiles(line, out), pictures)
    assert line["cell"]["guidance"] == record["guidance"]
    assert line["cell"]["negative_class_labels"] == [1, -1]
    assert line["cell"]["nfe"] == record["nfe"] == 4
    assert "away from 1,-1" in result.stdout


def test_guidance_is_an_axis_of_sweeps_and_a_negative_class_goes_where_it_has_an_effect(
    model, tmp_path
):
    out = tmp_path / "sweep"
    for words in (("--guidance", "1,3"), ("--guide", "cfg:scale=1,3")):
        assert kdiff_cli("sweep", *few(model, out), *NONE, *words).exit_code == 0
    plain = {line["key"]: line["cell"] for line in cells(out)}
    assert len(plain) == 2 and not any("negative_class_labels" in cell for cell in plain.values())
    words = ("--guidance", "1,3", "--negative-label", "b")
    dry = kdiff_cli("sweep", *few(model, out), *NONE, *words, "--dry-run").stdout
    assert "1 of 2 cells" in dry  # with a scale of 1 it is the same cell
    (tmp_path / "sweep.yaml").write_text("guidance: [1, 3]\nnegative-label: 1\nmetrics: none\n")
    file = ("--file", tmp_path / "sweep.yaml")
    assert kdiff_cli("sweep", *few(model, out), *file, "--dry-run").stdout == dry
    settings = json.loads((out / "sweep.json").read_text())["settings"]
    assert "negative_label" not in settings and "guidance" not in settings


def test_the_converged_solution_leads_away_from_the_class_too(model, tmp_path, monkeypatch):
    monkeypatch.setattr("kdiff.eval.sweep.converged_solution.STEPS", 24)
    out = tmp_path / "sweep"
    words = ("--metrics", "rmse", "--guidance", 3, "--negative-label", "b")
    assert kdiff_cli("sweep", *few(model, out), *words).exit_code == 0
    (line,) = cells(out)
    settings = {"n": 4, "class_labels": [0, 1, 2, 0], "guide": "cfg:scale=3"}
    settings["cond"] = {"negative_class_labels": [1] * 4}
    loaded = kdiff.load(model)
    x = kdiff.sample(loaded, "euler", steps=2, **settings)
    target = kdiff.sample(loaded, "unipc", steps=150, options={"order": 3}, **settings)
    each = (x - target).square().mean((1, 2, 3)).sqrt()
    assert line["metrics"]["RMSE"]["value"] == pytest.approx(float(each.mean()), rel=1e-2)
    away = {k: v for k, v in settings.items() if k != "cond"}
    other = kdiff.sample(loaded, "unipc", steps=150, options={"order": 3}, **away)
    assert not torch.allclose(other, target, atol=1e-3)


def test_a_second_network_is_loaded_once_and_keys_have_its_hash_but_not_its_name(
    model, tmp_path, toys
):
    other = toy_guidance.with_classes(tmp_path / "other.safetensors", 1)
    out = tmp_path / "sweep"

    def sweep(*words):
        result = kdiff_cli("sweep", *few(model, out), *NONE, *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    guide = ("--guide", f"beside:model={other}")
    sweep(*guide, "--guide", "above:low=1,2", "--steps", "2,3")
    assert toys == [str(other)]
    line = next(line for line in cells(out) if line["cell"]["steps"] == 2)
    named = {"name": "other", "sha256": kdiff.models.sha256(other)}
    assert line["cell"]["guidance"][0] == {"name": "beside", "options": {"model": named}}
    _, pictures = sample(model, tmp_path / "sample", *guide, "--guide", "above:low=1")
    assert np.array_equal(tiles(line, out), pictures)
    renamed = shutil.copy(other, tmp_path / "renamed.safetensors")
    again = ("--guide", "above:low=1,2", "--steps", "2,3", "--dry-run")
    assert "0 of 4 cells" in sweep("--guide", f"beside:model={renamed}", *again)
    toy_guidance.with_classes(other, 2)
    assert "4 of 4 cells" in sweep(*guide, *again)


@pytest.fixture
def again():
    """A sampler that asks about the first image of each batch once more, at a low noise level."""

    @sampler("again", order=1, paper="none", nfe=None, limit=10)
    def again(x, sigmas):
        d = (yield x, sigmas[0]).clone()
        d[:1] = yield Ask(d[:1], sigmas[-2], rows=[0])
        return d

    yield
    del REGISTRY["again"]


def test_where_images_take_different_numbers_of_evaluations_there_is_their_mean(
    model, tmp_path, toys, again
):
    words = ("--sampler", "again", "--guidance", 2, "--guide", "above:low=1")
    record, _ = sample(model, tmp_path / "sample", *words)
    assert (record["nfe"], record["asks"]) == (3, 2)  # the interval spares the first image one
    assert record["nfe_mean"] == (3 + 3 * 2) / 4
    told = kdiff_cli("sample", *few(model, tmp_path / "told"), *words).stdout
    assert "NFE 3 (2 asks), mean 2.2" in told
    out = tmp_path / "sweep"
    shown = kdiff_cli("sweep", *few(model, out), *NONE, *words).stdout
    (line,) = cells(out)
    assert line["nfe"] == {"mean": 2.25, "most": 3} and line["cell"]["nfe"] is None
    assert shown.splitlines()[1].split()[-2] == "2.2"
    two = Taken(3, 2, 9, 4) + Taken(3, 2, 3, 1)
    assert two.record() == {"nfe": 3, "asks": 2, "nfe_mean": 12 / 5}
