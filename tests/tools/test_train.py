"""tools/train.py on a handful of made-up images: it trains, saves, and goes on where it was."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import ndimage

import kdiff
from places import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import augment
import muon
import rank_agreement
import train as tool
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


# --- augmentation ---


def picture(n, size=32):
    """Smooth waves, which interpolation and mirrored borders hardly harm, `[n, 1, size, size]`."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (0.5 * torch.sin(x / 5 + 1) * torch.cos(y / 7)).expand(n, 1, size, size)


def test_an_image_is_flipped_half_the_time_and_its_label_says_so():
    torch.manual_seed(0)
    images = picture(400)
    changed, labels = augment.augment(images, probability=0.0)
    flipped = labels[:, 0] == 1
    assert 150 < flipped.sum() < 250 and not labels[:, 1:].any()
    torch.testing.assert_close(changed[flipped], images[flipped].flip(3), rtol=0, atol=0)
    torch.testing.assert_close(changed[~flipped], images[~flipped], rtol=0, atol=0)


def test_the_labels_say_what_was_done():
    """Against scipy, which samples the picture where the labels say."""
    torch.manual_seed(1)
    images = picture(24)
    changed, labels = augment.augment(images, probability=1.0)
    for image, result, label in zip(images, changed, labels.double().numpy(), strict=True):
        flip_x, flip_y, scale, cos, sin, along, across, *shift = label
        turn = np.array([[cos + 1, sin], [-sin, cos + 1]])
        strength, axis = np.hypot(along, across), np.arctan2(across, along) / 2
        c, s = np.cos(axis), np.sin(axis)
        frame = np.array([[c, -s], [s, c]])
        stretch = frame @ np.diag([2 ** (0.2 * strength), 2 ** (-0.2 * strength)]) @ frame.T
        mirror = np.diag([1 - 2 * flip_x, 1 - 2 * flip_y])
        matrix = mirror @ turn @ stretch * 2 ** (0.2 * scale)
        centre = (np.array(image.shape[1:]) - 1) / 2
        pixels = np.stack(np.meshgrid(*[np.arange(32.0)] * 2, indexing="xy"))  # x, y
        moved = pixels.reshape(2, -1) - centre[:, None] - 32 * 0.125 * np.array(shift)[:, None]
        x, y = np.linalg.inv(matrix) @ moved + centre[:, None]
        inside = (x > 1) & (x < 30) & (y > 1) & (y < 30)
        expected = ndimage.map_coordinates(image[0].double().numpy(), [y, x], order=3)
        error = np.abs(result[0].numpy().reshape(-1) - expected)[inside]
        assert inside.sum() > 100 and error.max() < 0.01


# --- Muon ---


def test_orthogonalize_leaves_the_singular_vectors_and_evens_out_the_values():
    torch.manual_seed(0)
    for shape in [(20, 50), (50, 20)]:
        matrix = torch.randn(shape)
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        seen = u.T @ muon.orthogonalize(matrix) @ vh.T
        assert (seen.diag() > 0.6).all() and (seen.diag() < 1.3).all()
        assert (seen - seen.diag().diag()).abs().max() < 0.05


def test_muon_steps_are_as_large_as_adams():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(32, 16, 3, 3))
    optimizer = muon.Muon([weight], lr=0.1)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    # Adam's root mean square is about 0.2 of its rate; singular values are 0.85 on average.
    size = float(weight.detach().square().mean().sqrt())
    assert size == pytest.approx(0.1 * 0.2 * 0.85, rel=0.05)


def test_muon_is_its_algorithm():
    """Momentum, look ahead, orthogonalize, step: weight by weight, although shapes are mixed."""
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (6, 8), (8, 4, 3, 3)]
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    expected = [weight.detach().clone() for weight in weights]
    momenta = [torch.zeros_like(weight) for weight in expected]
    optimizer = muon.Muon(weights, lr=0.1, momentum=0.9)
    for _ in range(3):
        for i, weight in enumerate(weights):
            weight.grad = torch.randn_like(weight)
            momenta[i] = 0.9 * momenta[i] + 0.1 * weight.grad
            ahead = (0.1 * weight.grad + 0.9 * momenta[i]).flatten(1)
            step = muon.orthogonalize(ahead) * 0.2 * max(ahead.shape) ** 0.5
            expected[i] = expected[i] - 0.1 * step.view_as(weight)
        optimizer.step()
    for weight, right in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), right, rtol=0, atol=2e-3)


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


# --- rank agreement ---


def sweep_of(folder, metric, values):
    """Cells of one model and sampler at as many numbers of steps as there are values."""
    cell = dict.fromkeys(rank_agreement.SAME)
    cell |= {"model": {"sha256": "a"}, "sampler": "euler", "seeds": {"first": 0, "n": 9}}
    folder.mkdir()
    lines = [
        {
            "key": f"{metric}{steps}",
            "cell": {**cell, "sigmas": [steps], "nfe": steps},
            "status": "ok",
            "metrics": {metric: {"value": value, "n": 9}, "seconds": {"value": 1.0, "n": 9}},
        }
        for steps, value in enumerate(values, 1)
    ]
    (folder / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_rank_agreement_is_one_for_the_same_order_whichever_way_it_counts(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    same = sweep_of(tmp_path / "b", "IS (cifar10-classifier)", [5, 6, 8, 9])
    other = sweep_of(tmp_path / "c", "FD (cifar10-classifier)", [1, 2, 3, 4])
    for second, correlation in [(same, "1.000"), (other, "-1.000")]:
        result = CliRunner().invoke(rank_agreement.main, [fid, second])
        assert result.exit_code == 0 and f"{correlation}  (4 sets of images)" in result.output


def test_rank_agreement_within_a_budget_is_not_that_of_all_budgets(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [33, 32, 31, 10, 5])
    second = sweep_of(tmp_path / "b", "FD (cifar10-classifier)", [61, 62, 63, 40, 20])
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--budget", "3,5"])
    assert [line.split() for line in result.output.splitlines()] == [
        ["FD", "(cifar10-classifier)", "FID", "0.600", "(5", "sets", "of", "images)"],
        ["NFE", "1", "to", "3", "-1.000", "(3", "sets", "of", "images)"],
        ["NFE", "4", "to", "5", "-", "(2)"],
    ]


def test_rank_agreement_of_some_samplers(tmp_path):
    """The fourth, which agrees, is of another sampler than the first three, which do not."""
    fid = sweep_of(tmp_path / "a", "FID", [33, 32, 31, 10])
    second = sweep_of(tmp_path / "b", "FD (cifar10-classifier)", [61, 62, 63, 40])
    for folder in (fid, second):
        file = Path(folder) / "cells.jsonl"
        *three, fourth = file.read_text().replace('"euler"', '"unipc"').splitlines()
        file.write_text("\n".join([*three, fourth.replace('"unipc"', '"euler"')]) + "\n")
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--sampler", "unipc"])
    assert "-1.000  (3 sets of images)" in result.output
    result = CliRunner().invoke(rank_agreement.main, [fid, second, "--sampler", "unipc,heun"])
    assert result.exit_code == 2 and "no cell is of 'heun'" in result.output


def test_rank_agreement_takes_no_figures_of_two_references_for_one(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    other = sweep_of(tmp_path / "b", "FID", [31, 21, 11, 6])
    file = tmp_path / "b" / "cells.jsonl"
    file.write_text(file.read_text().replace('"nfe"', '"reference": {"name": "test"}, "nfe"'))
    result = CliRunner().invoke(rank_agreement.main, [fid, other])
    assert result.exit_code == 2 and "FID is of more than one network or refer" in result.output


def test_rank_agreement_is_of_one_model_and_one_number_of_images(tmp_path):
    fid = sweep_of(tmp_path / "a", "FID", [30, 20, 10, 5])
    file = tmp_path / "a" / "cells.jsonl"
    more = file.read_text().splitlines()[0].replace('"n": 9', '"n": 10')
    file.write_text(file.read_text() + more.replace("FID1", "another") + "\n")
    result = CliRunner().invoke(rank_agreement.main, [fid])
    assert result.exit_code == 2 and "more than one model or N" in result.output


def test_rank_agreement_of_too_few_cells_is_one_line(tmp_path):
    result = CliRunner().invoke(rank_agreement.main, [str(tmp_path), str(tmp_path)])
    assert result.exit_code == 2 and "three sets of images" in result.output
