"""Every count may be a NumPy or torch integer. A bool, a fraction or text is refused."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
from kdiff.checkpoints.diffusers_scheduler import precond_of
from kdiff.cli import main
from kdiff.eval import evaluate
from kdiff.eval.images.from_model import Generated, every_class
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.metrics.density_coverage import density_coverage
from kdiff.eval.metrics.frechet import Gaussian, noise_floor
from kdiff.eval.metrics.kid import kernel_distance
from kdiff.eval.metrics.precision_recall import precision_recall
from kdiff.eval.statistics.inception_score_sums import InceptionScoreSums
from kdiff.eval.sweep.combinations import check_seeds
from kdiff.images import grid
from kdiff.lockstep import lockstep
from kdiff.model_check import health
from kdiff.samplers import REGISTRY

GAUSSIAN = kdiff.analytic.gaussian(torch.tensor([0.5, -1.0, 2.0]))
MODEL = kdiff.wrap(lambda x, t: x, shape=(2,), classes=3)
PLAN = kdiff.plan(GAUSSIAN, steps=1)
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
ROWS = np.random.RandomState(0).rand(12, 2)
PICTURES = np.zeros((2, 4, 4, 3), np.uint8)
TABLE = kdiff.wrap(lambda x, t: x, shape=(2,))


def sample(**arguments):
    return kdiff.sample(GAUSSIAN, "euler", **{"steps": 2, **arguments}).tolist()


# Each gives the same for 3, np.int64(3) and torch.tensor(3).
TAKERS = {
    "sample n": lambda n: sample(n=n),
    "sample batch": lambda n: sample(n=4, batch=n),
    "sample steps": lambda n: sample(steps=n),
    "sample seed": lambda n: sample(seed=n),
    "sample seeds": lambda n: sample(seeds=[1, n]),
    "sample shape": lambda n: kdiff.sample(lambda x, s: 0 * x, sigmas=[1, 0], shape=(n,)).shape,
    "lockstep batch": lambda n: [r.asked for r in lockstep(GAUSSIAN, [PLAN], range(4), batch=n)],
    "noise seed": lambda n: kdiff.Noise([n], (2,)).initial().tolist(),
    "noise shape": lambda n: kdiff.Noise([0], (n,)).initial().tolist(),
    "plan steps": lambda n: kdiff.plan(GAUSSIAN, steps=n).record(),
    "plan nfe": lambda n: kdiff.plan(GAUSSIAN, "heun", nfe=n).record(),
    "schedule": lambda n: kdiff.schedule("trailing", n, TABLE),
    "offset": lambda n: kdiff.schedule("leading", 2, TABLE, steps_offset=n),
    "sampler nfe": lambda n: REGISTRY["heun"].nfe(n),
    "sampler steps": lambda n: REGISTRY["heun"].steps(n),
    "alphas_cumprod": lambda n: kdiff.alphas_cumprod("linear", n),
    "iddpm": lambda n: kdiff.precond("iddpm", steps=n).sigmas,
    "diffusers": lambda n: precond_of({**FLOW, "num_train_timesteps": n}).sigmas,
    "wrap classes": lambda n: kdiff.wrap(lambda x, t: x, shape=(2,), classes=n).classes,
    "wrap shape": lambda n: kdiff.wrap(lambda x, t: x, shape=[n]).shape,
    "wrap null_class": lambda n: kdiff.wrap(lambda x, t: x, shape=[1], null_class=n).shape,
    "load shape": lambda n: kdiff.load("cifar10", shape=(n, 16, 16)).shape,
    "health": lambda n: health(GAUSSIAN_MODEL, n=n).noise.model,
    "grid": lambda n: grid(PICTURES, columns=n).shape,
    "gap": lambda n: grid(PICTURES, gap=n).shape,
    "every_class": lambda n: every_class(MODEL, n),
    "evaluation's batch": lambda n: [len(b) for b in open_pictures(PICTURES).batches(n)],
    "cells": lambda n: check_seeds(n, [0]),
    "first seeds": lambda n: check_seeds(2, [0, n]),
    "inception score": lambda n: InceptionScoreSums(20, n).classes,
    "kid subsets": lambda n: kernel_distance(ROWS, ROWS, subsets=n),
    "kid size": lambda n: kernel_distance(ROWS, ROWS, size=n),
    "precision": lambda n: precision_recall(ROWS, ROWS, k=n),
    "coverage": lambda n: density_coverage(ROWS, ROWS, k=n),
    "noise floor": lambda n: noise_floor(Gaussian(np.zeros(2), np.eye(2)), n),
}
GAUSSIAN_MODEL = kdiff.wrap(lambda x, t: x, "denoised", shape=(3, 4, 4))


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_a_count(take):
    expected = take(3)
    assert take(np.int64(3)) == expected
    assert take(torch.tensor(3)) == expected
    for wrong in (True, np.bool_(True), 1.5, "3", np.float64(3), [3]):
        with pytest.raises(ValueError) as error:
            take(wrong)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch", [0, True, 1.5])
def test_the_batch_of_an_evaluation(batch):
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1"):
        evaluate(PICTURES, batch=batch)


@pytest.mark.parametrize(
    "arguments", [{"n": 10**12}, {"seed": 2**64 - 1, "n": 2}, {"seeds": [2**64]}]
)
def test_huge_counts_are_refused_before_anything_is_computed(arguments):
    def never(x, sigma):
        raise AssertionError

    with pytest.raises(ValueError, match="must be a whole number"):
        kdiff.sample(never, sigmas=[1, 0], shape=(1,), batch=1, **arguments)


def test_a_huge_batch_is_all_there_is():
    assert sample(n=3, batch=10**30) == sample(n=3)


def test_more_images_than_an_evaluation_can_hold():
    with pytest.raises(ValueError, match="at most 10,000,000, not 1000000000000"):
        every_class(MODEL, 10**12)
    with pytest.raises(ValueError, match="at most 10,000,000, not 1000000000000"):
        check_seeds(10**12, [0])


def test_a_repeated_seed_is_not_evaluated():
    """Two equal images would count as two draws."""
    assert len(Generated(MODEL, PLAN, range(2))) == len(Generated(MODEL, PLAN, [5, 3])) == 2
    with pytest.raises(ValueError, match="a seed comes twice"):
        Generated(MODEL, PLAN, [0, 1, np.int64(0)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num: true", "Invalid value for '--num': 'True' is not a valid integer"),
        ("steps: true", "--steps takes whole numbers such as 5,10,20, not 'True'"),
        ("steps: 10000000000", "steps must be a whole number, at most 1,000,000"),
        ("nfe: 10000000000", "must be a whole number, at most 1,000,000"),
        ("num: 1000000000000", "must be a whole number, at most 10,000,000"),
        ("sigma-max: 1.0e+308", "sigmas above 0 must be from 1e-18 to 1e+18"),
    ],
)
def test_numbers_in_a_sweeps_file(text, message, tmp_path):
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(text)
    command = ["sweep", "--file", str(file), "--metrics", "none", "--out", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not out.exists()
