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
from kdiff.samplers import UnknownName
from kdiff.schedules import FINALS, SCHEDULES

TABLE = kdiff.precond("eps").sigmas
DISCRETE_MODEL = SimpleNamespace(sigma_min=TABLE[0], sigma_max=TABLE[-1], sigmas=TABLE)
CONTINUOUS = [name for name, schedule in SCHEDULES.items() if not schedule.discrete]
DISCRETE = [name for name, schedule in SCHEDULES.items() if schedule.discrete]


def timesteps(name: str, steps: int, final: str = "zero", **settings) -> list[float]:
    """The timesteps of a discrete schedule's sigmas, without the last 0."""
    sigmas = kdiff.schedule(name, steps, DISCRETE_MODEL, final=final, **settings)
    sigmas = sigmas[:-1] if final == "zero" else sigmas
    return list(np.interp(np.log(sigmas), np.log(TABLE), range(1000)))


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 333])
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
    assert sigmas[-1 if final == "sigma_min" else -2] == 0.03
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


# --- discrete time, T = 1000 ---


@pytest.mark.parametrize(
    ("name", "steps", "settings", "expected"),
    [
        ("linspace", 1, {}, [999]),
        ("linspace", 4, {}, [999, 666, 333, 0]),
        ("linspace", 5, {}, [999, 749.25, 499.5, 249.75, 0]),
        ("leading", 1, {}, [0]),
        ("leading", 5, {}, [800, 600, 400, 200, 0]),
        ("leading", 5, {"steps_offset": 1}, [801, 601, 401, 201, 1]),
        ("leading", 7, {}, [852, 710, 568, 426, 284, 142, 0]),
        ("trailing", 1, {}, [999]),
        ("trailing", 5, {}, [999, 799, 599, 399, 199]),
        ("trailing", 7, {}, [999, 856, 713, 570, 428, 285, 142]),
    ],
)
def test_discrete_grids(name, steps, settings, expected):
    """As in table 2 of Lin et al. 2023 (there from 1 to T)."""
    assert timesteps(name, steps, **settings) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("linspace", 3, [999, 666, 333, 0]),
        ("leading", 5, [801, 601, 401, 201, 1, 0]),
        ("trailing", 5, [999, 799, 599, 399, 199, 0]),
    ],
)
def test_discrete_grids_that_end_at_timestep_0(name, steps, expected):
    assert timesteps(name, steps, final="sigma_min") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
def test_all_timesteps(name):
    assert timesteps(name, 1000) == pytest.approx(list(range(999, -1, -1)), abs=1e-9)


# --- a part of the timesteps ---

COSINE = kdiff.precond("eps", alphas_cumprod="cosine")
LAST = sum(s <= 160 for s in COSINE.sigmas) - 1  # the last of 1000 timesteps that is of use


def cosine_timesteps(name: str, steps: int, model=COSINE, **settings) -> list[float]:
    sigmas = [s for s in kdiff.schedule(name, steps, model, **settings) if s]
    return list(np.interp(np.log(sigmas), np.log(COSINE.sigmas), range(1000)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linspace", [LAST, 0.75 * LAST, 0.5 * LAST, 0.25 * LAST, 0]),
        ("trailing", [LAST - round(i * (LAST + 1) / 5) for i in range(5)]),
        ("leading", [800, 600, 400, 200, 0]),  # which begins below
    ],
)
def test_timesteps_far_above_the_data_are_skipped(name, expected):
    assert LAST == 994
    assert cosine_timesteps(name, 5) == pytest.approx(expected, abs=1e-9)


def test_leading_that_would_begin_far_above_the_data():
    """500 of 1000: 998, 996 ..; they are drawn together, and their number stays."""
    found = cosine_timesteps("leading", 500)
    assert found == pytest.approx([i * LAST / 499 for i in range(499, -1, -1)], abs=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
def test_as_many_steps_as_timesteps_in_all(name):
    found = cosine_timesteps(name, 1000)
    assert found == pytest.approx(np.linspace(LAST, 0, 1000).tolist(), abs=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("final", FINALS)
def test_an_explicit_range_of_timesteps(name, final):
    high, low = COSINE.sigmas[900], COSINE.sigmas[100]
    found = cosine_timesteps(name, 4, sigma_max=high * 1.001, sigma_min=low / 1.001, final=final)
    assert len(found) == 4 + (final == "sigma_min")
    assert found[0] == pytest.approx(900, abs=1e-9) or (name == "leading" and found[0] < 900)
    assert found[-1] >= 100 - 1e-9 and (final == "zero" or found[-1] == pytest.approx(100))
    assert cosine_timesteps("trailing", 4, sigma_max=1e6)[0] == pytest.approx(999)
    assert cosine_timesteps("trailing", 4, sigma_max=500)[0] == pytest.approx(997)


def test_a_range_of_the_model_s_own_is_as_explicit():
    def made(**settings):
        return kdiff.wrap(lambda x, t: x, "eps", shape=(1,), alphas_cumprod="cosine", **settings)

    first = {None: 994, 80: 990, 500: 997, 1e6: 999}
    for sigma_max, timestep in first.items():
        model = made(sigma_max=sigma_max)
        assert cosine_timesteps("trailing", 4, model)[0] == pytest.approx(timestep)
        again = made().replace(sigma_max=model.sigma_max)
        assert cosine_timesteps("trailing", 4, again)[0] == pytest.approx(timestep)


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
        ({"rho": 1e300}, "strictly decreasing"),
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
