"""Schedules against their formulae, and every way to ask for a wrong one."""

import json
import math
import subprocess
import sys
import textwrap
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import kdiff
from discrete_model import DISCRETE_MODEL, TABLE
from kdiff.samplers import UnknownName
from kdiff.schedules import FINALS, SCHEDULES

CONTINUOUS = [name for name, schedule in SCHEDULES.items() if not schedule.discrete]


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 333, 499])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_decreases_between_its_ends(name, steps, final):
    sigmas = kdiff.schedule(name, steps, DISCRETE_MODEL, final=final)
    assert len(sigmas) == steps + 1
    assert all(type(s) is float for s in sigmas)
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[-1] == (0 if final == "zero" else pytest.approx(TABLE[0], rel=1e-14))
    if name != "leading":
        assert sigmas[0] == pytest.approx(TABLE[-1], rel=1e-14)


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_ends_are_exact(name, final):
    sigmas = kdiff.schedule(name, 7, sigma_min=0.03, sigma_max=77.7, final=final)
    assert sigmas[0] == 77.7
    if final == "sigma_min":
        assert sigmas[-1] == 0.03
    else:  # some go on from there to zero in their own way
        assert (sigmas[-2] == 0.03) == (SCHEDULES[name].ending == "sigma_min")
        assert sigmas[-2] >= 0.03 and sigmas[-1] == 0
    assert kdiff.schedule(name, 1, sigma_min=0.03, sigma_max=77.7) == [77.7, 0.0]


def test_the_range_is_the_model_s_unless_given():
    model = SimpleNamespace(sigma_min=0.01, sigma_max=5.0, sigmas=None)
    assert kdiff.schedule("karras", 2, model) == [5.0, 0.01, 0.0]
    assert kdiff.schedule("karras", 2, model, sigma_max=3) == [3.0, 0.01, 0.0]
    assert kdiff.schedule("karras", 2, model, sigma_min=1) == [5.0, 1.0, 0.0]
    assert kdiff.schedule("karras", 2) == [80.0, 0.002, 0.0]


def test_karras_by_hand():
    """EDM, eq. 5: (s_max^(1/7) + i / (n - 1) (s_min^(1/7) - s_max^(1/7)))^7."""
    a, b = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = [(a + i / 17 * (b - a)) ** 7 for i in range(18)]
    found = kdiff.schedule("karras", 18)
    assert found[:-1] == pytest.approx(expected, rel=1e-13)


def test_karras_with_another_rho():
    """rho = 1 is linear in sigma; a large one is nearly the exponential schedule."""
    linear = kdiff.schedule("karras", 5, sigma_min=1, sigma_max=9, rho=1)
    assert linear == pytest.approx([9, 7, 5, 3, 1, 0], rel=1e-14)
    steep = kdiff.schedule("karras", 9, rho=1e7)
    assert steep == pytest.approx(kdiff.schedule("exponential", 9), rel=1e-4)


def test_exponential():
    found = kdiff.schedule("exponential", 5, sigma_min=0.01, sigma_max=100)
    assert found == pytest.approx([100, 10, 1, 0.1, 0.01, 0], rel=1e-13)


def test_polyexponential():
    """ln sigma = u^rho ln(s_max / s_min) + ln s_min: with rho = 2, u^2 = 1, 1/4, 0."""
    found = kdiff.schedule("polyexponential", 3, sigma_min=0.01, sigma_max=100, rho=2)
    assert found == pytest.approx([100, 0.1, 0.01, 0], rel=1e-13)
    plain = kdiff.schedule("polyexponential", 6)
    assert plain == pytest.approx(kdiff.schedule("exponential", 6), rel=1e-13)


def test_vp():
    """ln(1 + sigma^2) = 19.9 t^2 / 2 + 0.1 t at even t; from t = 1 it is the range of VP."""
    model = kdiff.precond("vp")
    found = kdiff.schedule("vp", 5, model)[:-1]
    t = np.linspace(1, 1e-5, 5)
    np.testing.assert_allclose(np.log1p(np.square(found)), 19.9 * t**2 / 2 + 0.1 * t, rtol=1e-9)
    assert found[0] == pytest.approx(152.166, rel=1e-5)
    found = kdiff.schedule("vp", 3, sigma_min=0.5, sigma_max=3, beta_d=0, beta_min=2)
    assert math.log1p(found[1] ** 2) == pytest.approx((math.log(10) + math.log(1.25)) / 2)


# --- what is wrong ---


def test_names_are_found_however_they_are_written():
    assert kdiff.schedule("KARRAS", 3) == kdiff.schedule("karras", 3)
    assert kdiff.schedule("Poly-Exponential", 3) == kdiff.schedule("polyexponential", 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [("karass", "did you mean karras"), ("zzz", "there is karras, ")],
)
def test_an_unknown_schedule_suggests_the_nearest(name, message):
    with pytest.raises(UnknownName, match=f"unknown schedule {name!r}; {message}"):
        kdiff.schedule(name, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"steps": -3}, "steps must be a whole number, at least 1, not -3"),
        ({"final": "one"}, "final must be zero or sigma_min, not 'one'"),
        ({"sigma_min": 2, "sigma_max": 1}, "sigma_min must be above 0 and .* not 2 and 1"),
        ({"sigma_min": 80}, "sigma_min must be above 0 and below sigma_max, not 80 and 80"),
        ({"sigma_min": 0}, "sigma_min must be above 0"),
        ({"sigma_min": -1}, "sigma_min must be above 0"),
        ({"sigma_min": math.nan}, "sigma_min must be a number, not nan"),
        ({"sigma_max": math.inf}, "sigma_min must be above 0 and below sigma_max"),
        ({"beta_d": 1}, "the karras schedule has no setting 'beta_d'"),
        ({"rho": math.nan}, "rho must be a number, not nan"),
        ({"name": "polyexponential", "rho": 0}, "there is no polyexponential schedule with"),
        ({"rho": 0}, "there is no karras schedule with {'rho': 0}"),
        ({"rho": 1e-3}, "there is no karras schedule with"),
        ({"n": 3}, "the karras schedule has no setting 'n'"),
        ({"steps": 2.5}, "steps must be a whole number, at least 1, not 2.5"),
        ({"steps": True}, "steps must be a whole number, at least 1, not True"),
        ({"steps": 10**12}, "steps must be a whole number, at most 1,000,000, not 1000000000000"),
        ({"sigma_max": 1e308}, "sigmas above 0 must be from 1e-18 to 1e[+]18"),
        ({"sigma_max": 10**400}, "sigma_max must be a number, not 1000"),
        ({"sigma_max": "80"}, "sigma_max must be a number, not '80'"),
        ({"sigma_min": 5e-324}, "sigmas above 0 must be from 1e-18 to 1e[+]18"),
        ({"rho": 1e-300}, "there is no karras schedule with {'rho': 1e-300}"),
        ({"rho": 1e300}, "there is no karras schedule .* are not strictly decreasing"),
        ({"name": "flow", "shift": -1, "steps": 1}, "there is no flow schedule with {'shift': -1}"),
        ({"rho": "7"}, "rho must be a number, not '7'"),
        ({"rho": True}, "rho must be a number, not True"),
        ({"name": "vp", "beta_d": -5}, "there is no vp schedule with {'beta_d': -5}"),
        (
            {"name": "leading", "model": DISCRETE_MODEL, "steps_offset": 1.5},
            "steps_offset must be a whole number, at least 0, not 1.5",
        ),
        (
            {"name": "trailing", "model": DISCRETE_MODEL, "steps": 900, "final": "sigma_min"},
            "trailing is at timestep 0 before its last step: take fewer steps",
        ),
        ({"model": abs}, "the model does not say its noise range: give sigma_min and sigma_max"),
        ({"name": "trailing"}, "the trailing schedule needs a discrete-time model; try karras"),
        (
            {"name": "linspace", "model": DISCRETE_MODEL, "steps": 1001},
            "steps must be at most the model's 1000 timesteps, not 1001",
        ),
        (
            {"name": "leading", "model": DISCRETE_MODEL, "steps": 1000, "final": "sigma_min"},
            "steps must be at most the model's 1000 timesteps",
        ),
        (
            {"name": "leading", "model": DISCRETE_MODEL, "sigma_min": 4, "sigma_max": 4.001},
            "the model has too few timesteps from sigma 4 to 4.001",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kdiff.schedule(**{"name": "karras", "steps": 5, **arguments})


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([], "two or more"),
        ([3.0], "two or more"),
        ([3.0, 3.0], "strictly decreasing"),
        ([1.0, 2.0], "strictly decreasing"),
        ([3.0, 1.0, 2.0, 0.0], "strictly decreasing"),
        ([3.0, 1.0, 0.0, 0.0], "strictly decreasing"),
        ([3.0, 1.0, -1.0], "end at or above 0"),
        ([math.nan, 1.0, 0.0], "a sigma must be a number, not nan"),
        ([3.0, math.nan, 0.0], "a sigma must be a number"),
        ([3.0, math.nan], "a sigma must be a number"),
        ([math.inf, 1.0, 0.0], "finite"),
        ([1e308, 1.0, 0.0], "sigmas above 0 must be from 1e-18 to 1e[+]18"),
        ([1.0, 5e-324, 0.0], "sigmas above 0 must be from 1e-18 to 1e[+]18"),
        ([10**400, 1.0], "a sigma must be a number, not 10000"),
        (["80", "1"], "a sigma must be a number, not '80'"),
        ([True, 0], "a sigma must be a number, not True"),
        (5, "sigmas must be a list of numbers, not 5"),
        ([[3.0, 1.0]], "a sigma must be a number"),
    ],
)
def test_wrong_explicit_sigmas(sigmas, message):
    with pytest.raises(ValueError, match=message):
        kdiff.plan(sigmas=sigmas)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor])
def test_numbers_of_other_libraries_are_taken_in_float64(number):
    """In float32, as NumPy would compute with a np.float32, the inner sigmas would differ."""
    given = {"sigma_min": number(0.25), "sigma_max": number(64.0), "rho": number(7.0)}
    grid = kdiff.schedule("karras", np.int64(5), **given)
    assert grid == kdiff.schedule("karras", 5, sigma_min=0.25, sigma_max=64.0)
    assert {type(s) for s in grid} == {float}


def test_the_range_of_a_model_may_be_tensors():
    model = kdiff.schedules.Range(torch.tensor(0.25), torch.tensor(64.0))
    assert kdiff.schedule("exponential", 5, model) == kdiff.schedule(
        "exponential", 5, sigma_min=0.25, sigma_max=64.0
    )


def test_schedules_and_preconditioners_do_not_import_torch():
    """Under a package without its __init__, which imports all."""
    code = """
        import sys, types
        sys.modules["kdiff"] = package = types.ModuleType("kdiff")
        package.__path__ = sys.argv[1:]
        from kdiff.preconditioners import precond
        from kdiff.schedules import schedule
        assert schedule("Karras", 3)[0] == 80 and precond("eps").sigmas
        assert "torch" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *kdiff.__path__]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_plan_of_numpys_numbers_is_recorded_as_plain_json():
    plan = kdiff.plan(
        sampler="deis",
        steps=np.int64(3),
        sigma_max=np.float32(8),
        options={"order": np.int32(2), "lower_order_final": np.bool_(True)},
    )
    same = kdiff.plan(
        sampler="deis",
        steps=3,
        sigma_max=8,
        options={"order": 2, "lower_order_final": True},
    )
    assert json.loads(json.dumps(plan.record())) == same.record()
    noisy = kdiff.plan(sampler="ddim", nfe=np.int16(3), options={"eta": np.float32(0.3)})
    assert json.loads(json.dumps(noisy.record()))["options"]["eta"] == float(np.float32(0.3))
