"""kdiff inspect, and networks that do not do what a command needs."""

import json

import numpy as np
import pytest
import torch

import kdiff
from kdiff.checkpoints import native
from places import GOLDEN
from tiny_models import images, kdiff_cli

# --- kdiff inspect ---


def test_inspect_says_what_the_packaged_model_is():
    result = kdiff_cli("inspect", "cifar10", "--no-health")
    assert result.exit_code == 0, result.stderr
    for text in (
        "kdiff/1",
        "SongUNet, 4,103,171 parameters",
        "0.002 to 80",
        "3 x 32 x 32",
        "airplane",
    ):
        assert text in result.stdout


def test_the_packaged_model_is_healthy():
    found = json.loads(kdiff_cli("inspect", "cifar10", "--num", 2, "--json").stdout)
    assert "nothing speaks against it" in found["health"]["verdict"]
    assert found["health"]["sigmas"] == [0.05, 0.2, 1, 5, 20, 80]


def test_inspect_with_images(tiny, tmp_path):
    np.save(tmp_path / "images.npy", images())
    result = kdiff_cli("inspect", tiny, "--images", tmp_path / "images.npy", "--num", 4)
    assert result.exit_code == 0, result.stderr
    assert "on images" in result.stdout and "on noise" in result.stdout
    record = json.loads(
        kdiff_cli("inspect", tiny, "--images", tmp_path / "images.npy", "--json").stdout
    )
    assert record["format"] == "kdiff/1" and record["classes"] == ["a", "b"]
    assert record["parameters"] == sum(p.numel() for p in kdiff.load(tiny).network.parameters())
    assert record["health"]["images"]["guess"][0] == pytest.approx(0.05, rel=0.05)


def test_what_cannot_be_called_so_is_still_inspected(tiny, monkeypatch):
    def load(path, **overrides):
        return kdiff.wrap(lambda x, t, *, prompt: x, shape=(3, 8, 8))

    monkeypatch.setattr("kdiff.cli.choices.load", load)
    result = kdiff_cli("inspect", tiny)
    assert result.exit_code == 0
    assert "unknown: the network cannot be called so" in result.stdout and "prompt" in result.stdout


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["nothing"], "no model 'nothing'"),
        (["cifar10", "--images", "nowhere"], "no folder or file"),
        (["cifar10", "--num", 1], "at least 2"),
    ],
)
def test_inspect_refuses_in_one_line(arguments, text):
    result = kdiff_cli("inspect", *arguments)
    assert result.exit_code == 2 and text in result.stderr


# --- settings that a file lacks ---


def test_inspect_takes_the_same_settings(no_size):
    result = kdiff_cli("inspect", no_size, "--set", "shape=(3, 8, 12)", "--json", "--no-health")
    assert json.loads(result.stdout)["shape"] == [3, 8, 12]


# --- networks that do not do what a command needs ---


def test_what_is_not_finite_is_said_plainly(tiny, tmp_path):
    model = kdiff.load(tiny)
    model.network.map_layer0.bias.fill_(torch.nan)
    native.save(tiny, model.network.state_dict(), native.describe(model), torch.float32)
    result = kdiff_cli("sample", "--model", tiny, "--num", 1, "--steps", 2, "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the model's output is not finite in step 1 of 2")
    assert "KDIFF_TRACEBACK" not in result.stderr


def test_names_of_classes_may_have_capitals(tiny, tmp_path):
    target = tmp_path / "named.safetensors"
    assert kdiff_cli("convert", tiny, target, "--set", "classes=Cat,Dog").exit_code == 0
    arguments = ["--num", 1, "--steps", 2, "--out", tmp_path / "out"]
    result = kdiff_cli("sample", "--model", target, "--class-label", "Dog", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "run.json").read_text())["class_labels"] == [1]


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, AssertionError])
def test_a_network_that_fails_is_one_line(tiny, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("it needs\na prompt")

    monkeypatch.setattr("kdiff.cli.choices.load", lambda path: kdiff.wrap(fail, shape=(3, 8, 8)))
    np.savez(tmp_path / "toy.npz", mu=np.zeros(12), sigma=np.eye(12))
    judges = ["--features", "toy_network:features", "--ref", tmp_path / "toy.npz"]
    for command in (["sample", "--out", tmp_path / "out"], ["eval-fid", *judges]):
        result = kdiff_cli(*command, "--model", tiny)
        last = result.stderr.splitlines()[-1]
        assert result.exit_code == 1 and last == f"Error: {tiny}: it needs a prompt"


def test_latents_are_no_pictures(tmp_path):
    source = GOLDEN / "edm2_latents.pkl"
    for command in ("sample", "sweep"):
        result = kdiff_cli(command, "--model", source, "--out", tmp_path / "out")
        assert result.exit_code == 2 and "4 x 8 x 8 latents, not pictures" in result.stderr
        assert not (tmp_path / "out").exists()


def test_images_are_no_data_of_a_model_of_latents(tmp_path):
    np.save(tmp_path / "images.npy", images())
    result = kdiff_cli("inspect", GOLDEN / "edm2_latents.pkl", "--images", tmp_path / "images.npy")
    assert result.exit_code == 2 and "works on 4 x 8 x 8 latents, not on images" in result.stderr
