"""tools/train.py on a handful of made-up images: it trains, saves, and goes on where it was."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import augment
import kdiff
import train as tool
from places import ROOT
from recipes import RECIPES
from training_data import load_cifar10

TRAIN = ROOT / "tools" / "train.py"


def train(tmp_path, *arguments, launcher=()):
    command = [sys.executable, *launcher, str(TRAIN), "--data", str(tmp_path / "tiny.npz")]
    command += ["--out", str(tmp_path / "run"), "--batch", "4", "--no-compile", "--decay-kimg", "1"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "tiny.npz", train_images=images, train_labels=np.arange(12) % 10)


@pytest.mark.usefixtures("data")
def test_trains_and_resumes(tmp_path):
    first = train(tmp_path, "--kimg", "0.008", "--no-draw")
    assert first.returncode == 0, first.stderr
    second = train(tmp_path, "--kimg", "0.012", "--fp32")
    assert second.returncode == 0, second.stderr
    state = json.loads((tmp_path / "run" / "train.json").read_text())
    assert state["images"] == 12 and 0 < state["loss"] < 2
    assert (tmp_path / "run" / "samples" / "00000012.png").exists()
    model = kdiff.load(tmp_path / "run" / "model-ema10.safetensors")
    assert kdiff.sample(model, steps=1, class_labels=[1]).shape == (1, 3, 32, 32)


def test_missing_data_is_one_line(tmp_path):
    result = train(tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr


@pytest.mark.usefixtures("data")
def test_the_large_recipe_is_told_how_images_were_changed(tmp_path):
    result = train(tmp_path, "--recipe", "cifar10-gpu", "--kimg", "0.004", "--no-draw")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "run" / "model-ema100.safetensors"
    assert path.stat().st_size < 20e6  # what the package has room for
    assert kdiff.load(path).network.map_augment.weight.shape[1] == augment.LABELS


def test_grey_images_of_another_size(tmp_path):
    images = np.zeros((12, 28, 28, 1), dtype=np.uint8)
    np.savez(tmp_path / "tiny.npz", train_images=images, train_labels=np.arange(12) % 10)
    result = train(tmp_path, "--recipe", "mnist", "--kimg", "0.004", "--ema-kimg", "1")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "samples" / "00000004.png").exists()
    path = tmp_path / "run" / "model-ema1.safetensors"
    assert path.stat().st_size < 2e6
    assert kdiff.load(path).shape == (1, 28, 28)


@pytest.mark.usefixtures("data")
def test_two_processes_train_one_model(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    result = train(tmp_path, "--kimg", "0.008", "--no-draw", launcher=launcher)
    assert result.returncode == 0, result.stderr
    state = json.loads((tmp_path / "run" / "train.json").read_text())
    assert state["images"] == 8  # two steps of 4 images, 2 in each process


# --- the loss, its noise levels, the averages, the rate ---


def test_the_loss_is_edms(monkeypatch):
    """lambda(sigma) |D(y + n; sigma) - y|^2 with lambda = (sigma^2 + 0.25) / (0.5 sigma)^2 (Karras
    et al. 2022, table 1), D computed by kdiff.Denoiser."""
    torch.manual_seed(0)
    levels = torch.tensor([0.1, 0.5, 3.0, 20.0], dtype=torch.float64)
    monkeypatch.setattr(tool, "training_sigmas", lambda n: levels)
    seen = []

    def network(x, c_noise, class_labels=None):
        seen.append(x)
        return torch.sin(x) + c_noise[:, None, None, None]

    edm = kdiff.precond("edm")
    y = torch.rand(4, 3, 8, 8) * 2 - 1
    loss = tool.edm_loss(network, edm, y)
    model, terms = kdiff.Denoiser(network, edm, shape=(3, 8, 8)), []
    for i, sigma in enumerate(levels.tolist()):
        noisy = seen[0][i : i + 1] / edm(sigma).c_in
        weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
        terms.append(weight * (model(noisy, sigma) - y[i : i + 1]).square().mean())
    assert float(loss) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-4)


def test_training_noise_is_lognormal_and_stratified():
    torch.manual_seed(0)
    logs = (tool.training_sigmas(4096).log() + 1.2) / 1.2
    assert float(logs.mean()) == pytest.approx(0, abs=0.01)
    assert float(logs.std()) == pytest.approx(1, rel=0.01)
    quantiles = (torch.special.ndtr(logs) * 4096).floor().long()
    assert sorted(quantiles.tolist()) == list(range(4096))


def test_the_rate_warms_up_stays_and_falls():
    recipe = replace(RECIPES["cifar10"], lr=2.0, kimg=100.0, warmup_kimg=10.0, decay_kimg=40.0)
    rates = [tool.learning_rate(1000 * kimg, recipe) for kimg in (0, 5, 10, 60, 80, 100)]
    assert rates == pytest.approx([0.0002, 1.0002, 2, 2, 1, 0])
    constant = replace(recipe, decay_kimg=0.0)
    assert tool.learning_rate(100_000, constant) == 2


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    return tool.Trainer(replace(RECIPES["mnist"], ema_kimg=(1.0, 50.0)), torch.device("cpu"))


def step(trainer, images, rate=1e-3):
    labels = torch.arange(len(images)) % 10
    loss = tool.edm_loss(trainer.network, kdiff.precond("edm"), images, class_labels=labels)
    trainer.step(loss, rate, len(images))


def test_an_average_forgets_half_in_its_half_life_and_the_start_sooner(trainer):
    def after(images):
        filled = [(trainer.network, 1.0), *((a, 0.0) for a in trainer.averages.values())]
        for network, value in filled:
            for parameter in network.parameters():
                parameter.data.fill_(value)
        trainer.state["images"] = images
        trainer._update_averages(1000)
        return [float(next(a.parameters()).flatten()[0]) for a in trainer.averages.values()]

    assert after(10_000_000) == pytest.approx([0.5, 1 - 0.5 ** (1 / 50)], rel=1e-4)
    assert after(10_000) == pytest.approx([0.75, 0.75], rel=1e-4)  # a twentieth of 10,000 is 500


def test_going_on_is_as_if_it_had_not_stopped(trainer, tmp_path):
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    for _ in range(2):
        step(trainer, images)
    trainer.save(tmp_path, 1.0)
    other = tool.Trainer(replace(RECIPES["mnist"], ema_kimg=(1.0, 50.0)), torch.device("cpu"))
    other.load(tmp_path / "checkpoint.pt")
    for either in (trainer, other):
        torch.manual_seed(1)
        step(either, images)
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], value, rtol=0, atol=0)
        for kimg, average in trainer.averages.items():
            mine, theirs = average.state_dict()[name], other.averages[kimg].state_dict()[name]
            torch.testing.assert_close(theirs, mine, rtol=0, atol=0)
    assert other.state["images"] == 12


def test_a_training_that_came_to_nothing_leaves_the_last_checkpoint(trainer, tmp_path):
    step(trainer, torch.zeros(4, 1, 28, 28))
    trainer.save(tmp_path, 1.0)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    step(trainer, torch.full((4, 1, 28, 28), float("nan")))
    with pytest.raises(click.ClickException, match="not finite"):
        trainer.save(tmp_path, 2.0)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_recipe_is_refused(trainer, tmp_path):
    step(trainer, torch.zeros(4, 1, 28, 28))
    trainer.save(tmp_path, 1.0)
    with pytest.raises(click.UsageError, match="another recipe"):
        tool.Trainer(RECIPES["mnist"], torch.device("cpu")).load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--batch", "0"], "0 is not in the range"),
        (["--ema-kimg", "0"], "0.0 is not in the range"),
        (["--init", "nowhere"], "no model 'nowhere'"),
        (["--init", "mnist"], "does not fit"),
    ],
)
@pytest.mark.usefixtures("data")
def test_options_that_make_no_sense_are_one_line(tmp_path, options, message):
    data = ["--data", str(tmp_path / "tiny.npz"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(tool.main, [*data, *options])
    assert result.exit_code == 2 and message in result.output


def test_a_file_that_is_not_the_data_is_one_line(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    for name in ("other.npz", "damaged.npz"):
        with pytest.raises(click.UsageError, match="with train_images"):
            load_cifar10(tmp_path / name)
