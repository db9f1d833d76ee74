"""Arguments of `kdiff.sample` and `kdiff.plan`: seeds, conditions, budgets, sigmas."""

import math
import re

import pytest
import torch

import kdiff
from exact_models import GAUSSIAN
from kdiff.samplers import UnknownName

# --- seeds and batches ---


def test_seeds():
    def sample(**kwargs):
        return kdiff.sample(GAUSSIAN, "dpmpp_2m_sde", steps=4, **kwargs)

    assert sample().shape == (1, 3)
    assert torch.equal(sample(), sample(seed=0))
    assert torch.equal(sample(n=3, seed=7), sample(seeds=[7, 8, 9]))
    assert torch.equal(sample(seeds=[9, 3]), torch.cat([sample(seed=9), sample(seed=3)]))
    assert torch.equal(sample(n=2, seeds=(5, 1)), sample(seeds=range(5, 0, -4)))
    assert not torch.isclose(sample(seed=1), sample(seed=2)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number, at least 1, not 0"),
        ({"seeds": []}, "nothing to sample"),
        ({"n": 3, "seeds": [1, 2]}, "n = 3, but there are 2 seeds"),
        ({"n": 2, "batch": 0}, "batch must be a whole number, at least 1, not 0"),
        ({"seed": -1}, "a seed must be a whole number from 0 to 2^64 - 1, not -1"),
        ({"seeds": [1, 2**64]}, "a seed must be a whole number"),
        ({"n": 2, "class_labels": [1]}, "class_labels must have one row for each of the 2"),
        ({"n": 2, "class_labels": 1}, "class_labels must have one row for each of the 2"),
        ({"n": 1, "cond": {"text": torch.zeros(2, 5)}}, "text must have one row for each of the 1"),
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"steps": 3, "nfe": 3}, "give only one of steps, nfe and sigmas"),
        ({"steps": 3, "sigmas": [1, 0]}, "give only one of steps, nfe and sigmas"),
        ({"nfe": 3, "sigmas": [1, 0]}, "give only one of steps, nfe and sigmas"),
        ({"sigmas": [1, 0], "schedule": "karras"}, "sigmas are the whole grid: leave out schedule"),
        ({"sigmas": [1, 0], "stpes": 3}, "sigmas are the whole grid: leave out stpes"),
        ({"nfe": 0}, "nfe of dpmpp_2m must be a whole number, at least 1, not 0"),
        ({"options": {"solver": 1}}, "unknown dpmpp_2m option 'solver'; did you mean solver_type"),
        ({"nfe": 2.5}, "nfe of dpmpp_2m must be a whole number"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"seed": 1, "seeds": [1]}, "give only one of seed and seeds"),
        ({"solver_type": "heun"}, "solver_type is an option of dpmpp_2m: give it in options"),
        ({"final": "one", "sigmas": [1, 0]}, "final must be zero or sigma_min, not 'one'"),
        ({"dtype": torch.int32}, "noise needs a floating-point dtype"),
        ({"schedule": ""}, "unknown schedule ''"),
        ({"schedule": "karass"}, "did you mean karras"),
        ({"start": 3}, "start must be a tensor of a floating-point dtype"),
        ({"start": torch.tensor(1.0)}, "start must be a tensor of a floating-point dtype"),
        ({"start": torch.full((1, 3, 4, 4), math.nan)}, "start must be finite"),
        ({"rh": 3}, "the karras schedule has no setting 'rh'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kdiff.sample(GAUSSIAN, **arguments)


def test_conditions_are_cut_into_batches():
    given = []

    def denoise(x, sigma, class_labels, text):
        given.append((class_labels.tolist(), text[:, 0].tolist()))
        return torch.zeros_like(x)

    kdiff.sample(
        denoise,
        "euler",
        sigmas=[1, 0],
        n=3,
        batch=2,
        shape=(1,),
        class_labels=[7, 8, 9],
        cond={"text": torch.tensor([[0.0, 1], [2, 3], [4, 5]]), "absent": None},
    )
    assert given == [([7, 8], [0.0, 2.0]), ([9], [4.0])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solver_has_the_dtype_that_is_asked_for(dtype):
    assert kdiff.sample(GAUSSIAN, steps=3, dtype=dtype).dtype is dtype


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3)])
def test_the_shape_of_a_plain_function_is_given(shape):
    assert (4, *shape) == kdiff.sample(
        lambda x, s: 0 * x, steps=2, sigma_min=0.1, sigma_max=9, n=4, shape=shape
    ).shape


def test_the_device_of_a_plain_function_is_given():
    def denoise(x, sigma):
        raise LookupError(x.device.type)

    with pytest.raises(LookupError, match="meta"):
        kdiff.sample(denoise, "euler", sigmas=[1, 0], shape=(3,), device="meta")


# --- the plan ---


def test_the_default_plan():
    plan = kdiff.plan(GAUSSIAN)
    assert (plan.sampler.name, plan.schedule, plan.steps, plan.nfe) == (
        "dpmpp_2m",
        "karras",
        20,
        20,
    )
    assert plan.sigmas == kdiff.schedule("karras", 20, GAUSSIAN)
    assert plan.final == "zero"


@pytest.mark.parametrize(
    ("sampler", "nfe", "final", "steps"),
    [
        ("dpmpp_2m", 10, "zero", 10),
        ("heun", 10, "zero", 5),
        ("heun", 11, "zero", 6),
        ("heun", 10, "sigma_min", 5),
        ("heun", 11, "sigma_min", 5),
        ("plms", 10, "zero", 9),
    ],
)
def test_a_budget_of_evaluations(sampler, nfe, final, steps):
    plan = kdiff.plan(GAUSSIAN, sampler, nfe=nfe, final=final)
    assert plan.steps == steps
    assert plan.nfe <= nfe


def test_explicit_sigmas():
    plan = kdiff.plan(GAUSSIAN, "heun", sigmas=[9, 3, 1])
    assert (plan.sigmas, plan.final, plan.nfe) == ([9.0, 3.0, 1.0], "sigma_min", 4)
    assert kdiff.plan(GAUSSIAN, "heun", sigmas=(9, 3, 0)).nfe == 3
    start = 9 * kdiff.Noise([4], (3,)).initial()
    expected = kdiff.analytic.gaussian_solution(torch.tensor([0.5, -1, 2]), 0.5, start, 9, 1)
    grid = [9 - 8 * i / 400 for i in range(401)]
    found = kdiff.sample(GAUSSIAN, "heun", sigmas=grid, seed=4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_schedule_in_a_name_and_the_one_given():
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M SDE Heun Exponential").schedule == "exponential"
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Karras", schedule="vp").schedule == "vp"
    options = {"solver_type": "midpoint"}
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Heun", options=options).options["solver_type"] == (
        "midpoint"
    )
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Heun").options["solver_type"] == "heun"
    with pytest.raises(UnknownName):
        kdiff.plan(GAUSSIAN, "DPM++ 2M Karas")
