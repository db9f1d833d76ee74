"""tools/train_classifier.py: its pieces, and a run on made-up images."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from torch import nn

import noisy_classifier as noisy
import train_classifier as tool
from kdiff.classifiers import load_classifier
from kdiff.eval.features.cifar10_classifier import Classifier


@pytest.fixture(autouse=True)
def own_random_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def smooth(n):
    """Correlated pixels, as in photographs."""
    return F.avg_pool2d(torch.randn(n, 3, 40, 40), 9, stride=1) * 4


def test_whitened_patches_are_uncorrelated_and_of_unit_size():
    images = smooth(200)
    kernels = tool.whitening(images)
    seen = F.conv2d(images, kernels[:12]).transpose(0, 1).flatten(1).double()
    second = seen @ seen.T / seen.shape[1]
    assert (second - second.diag().diag()).abs().max() < 0.01
    large = second.diag() > 0.5  # the rest is below the noise that whitening allows for
    assert large.sum() >= 5 and second.diag().max() < 1.001


def test_an_augmented_image_is_the_image_shifted_perhaps_flipped_with_a_hole():
    images = torch.rand(20, 3, 32, 32) + 0.1
    for image, changed in zip(images, tool.augment(images), strict=True):
        hole = (changed == 0).all(0)
        assert 0 < hole.sum() <= tool.CUTOUT**2
        padded = F.pad(torch.stack([image, image.flip(2)]), [2] * 4, mode="reflect")
        views = [padded[..., i : i + 32, j : j + 32] for i in range(5) for j in range(5)]
        differences = (torch.cat(views) - changed).abs().sum(1)
        assert (differences[:, ~hole] == 0).all(1).any()


def test_folding_leaves_the_function_as_it_is():
    network = tool.make_network(smooth(50))
    for _ in range(3):  # statistics to fold
        network(smooth(16))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_()
    folded = tool.fold(network)
    x = smooth(8)
    for a, b in zip(network.eval()(x), folded(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_temperature_is_the_most_likely_one():
    labels = torch.randint(0, 10, (500,))
    logits = F.one_hot(labels, 10) * 2.0 + 1.5 * torch.randn(500, 10)
    best = minimize_scalar(lambda t: float(F.cross_entropy(logits / t, labels)), (0.3, 1, 4))
    assert tool.temperature(logits, labels) == pytest.approx(best.x, rel=2e-3)


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    sure = torch.tensor([[0.9, 0.1]]).log().expand(10, 2)  # right nine times in ten, it says
    half = torch.tensor([0] * 5 + [1] * 5)  # and is so five times
    assert tool.calibration_error(sure, half) == pytest.approx(0.4, abs=1e-6)
    assert tool.calibration_error(sure, torch.tensor([0] * 9 + [1])) == pytest.approx(0, abs=1e-6)


def bright_lines(path, n):
    """A data set of n images with a bright line at a height that tells the class, 100 for tests."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    images = rng.integers(0, 128, (n, 32, 32, 3), dtype=np.uint8)
    images[np.arange(n), 3 * labels] += 127
    arrays = {"train_images": images, "train_labels": labels}
    arrays |= {"test_images": images[:100], "test_labels": labels[:100]}
    np.savez(path, **arrays)
    return path


def test_it_trains_and_writes_what_the_package_reads(tmp_path):
    out = tmp_path / "classifier.safetensors"
    options = [
        "--data",
        bright_lines(tmp_path / "data.npz", 2400),
        "--out",
        out,
        "--epochs",
        3,
        "--batch",
        50,
    ]
    result = CliRunner().invoke(tool.main, [str(o) for o in options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output[result.output.index("{") :])
    assert found["test accuracy"] > 0.3 and out.stat().st_size < 2e6  # 0.1 by chance
    Classifier().load_state_dict(load_file(out))


def test_noise_levels_of_training_are_log_normal_but_for_one_in_eight():
    sigmas = noisy.training_sigmas(40_000)
    assert sigmas.min() >= noisy.SIGMA_MIN and sigmas.max() <= noisy.SIGMA_MAX
    share = float((sigmas.log() < noisy.LN_MEAN).double().mean())
    low, high = np.log(noisy.SIGMA_MIN), np.log(noisy.SIGMA_MAX)
    expected = (7 * 0.5 + (noisy.LN_MEAN - low) / (high - low)) / 8
    assert share == pytest.approx(expected, abs=0.01)


def test_it_trains_a_noisy_classifier_that_the_package_reads(tmp_path):
    out = tmp_path / "noisy.safetensors"
    data = bright_lines(tmp_path / "data.npz", 600)
    options = ["--noisy", "--data", data, "--out", out, "--epochs", 2, "--batch", 20]
    result = CliRunner().invoke(tool.main, [str(o) for o in options])
    assert result.exit_code == 0, result.output
    table = result.output[result.output.index("100 test images") :].splitlines()[2:13]
    accuracy = [float(line.split()[1].rstrip("%")) for line in table]
    assert accuracy[0] > 30 > accuracy[-1]  # 10 by chance, which is all that sigma = 80 leaves
    classifier = load_classifier(out)
    assert classifier.classes[3] == "cat" and out.stat().st_size < 2e6
