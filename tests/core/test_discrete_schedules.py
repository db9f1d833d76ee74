"""Schedules that choose among a model's timesteps."""

import numpy as np
import pytest

import kdiff
from discrete_model import DISCRETE_MODEL, TABLE
from kdiff.schedules import FINALS, SCHEDULES

DISCRETE = [name for name, schedule in SCHEDULES.items() if schedule.discrete]
# With as many steps as timesteps, the others do not take each once.
WHOLE = [name for name in DISCRETE if name not in ("sgm_uniform", "quadratic", "beta_timesteps")]


def timesteps(name: str, steps: int, final: str = "zero", **settings) -> list[float]:
    """The timesteps of a discrete schedule's sigmas, without the last 0."""
    sigmas = kdiff.schedule(name, steps, DISCRETE_MODEL, final=final, **settings)
    sigmas = sigmas[:-1] if final == "zero" else sigmas
    return list(np.interp(np.log(sigmas), np.log(TABLE), range(1000)))


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
        ("sgm_uniform", 3, {}, [999, 666, 333]),
        ("simple", 3, {}, [999, 666, 333]),
        ("simple", 7, {}, [999, 857, 714, 571, 428, 285, 142]),
        ("quadratic", 4, {}, [999, 444, 111, 0]),
        ("ddim_uniform", 5, {}, [801, 601, 401, 201, 1]),
    ],
)
def test_discrete_grids(name, steps, settings, expected):
    """Table 2 of Lin et al. 2023 has them (there from 1 to T)."""
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


@pytest.mark.parametrize("name", WHOLE)
def test_all_timesteps(name):
    assert timesteps(name, 1000) == pytest.approx(list(range(999, -1, -1)), abs=1e-9)


# --- a part of the timesteps ---


COSINE = kdiff.precond("eps", alphas_cumprod="cosine")
LAST = sum(s <= 160 for s in COSINE.sigmas) - 1  # the last useful timestep of 1000


def cosine_timesteps(name: str, steps: int, model=COSINE, **settings) -> list[float]:
    sigmas = [s for s in kdiff.schedule(name, steps, model, **settings) if s]
    return list(np.interp(np.log(sigmas), np.log(COSINE.sigmas), range(1000)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linspace", [LAST, 0.75 * LAST, 0.5 * LAST, 0.25 * LAST, 0]),
        ("trailing", [LAST - round(i * (LAST + 1) / 5) for i in range(5)]),
        ("leading", [800, 600, 400, 200, 0]),  # it begins below
    ],
)
def test_timesteps_far_above_the_data_are_skipped(name, expected):
    assert LAST == 994
    assert cosine_timesteps(name, 5) == pytest.approx(expected, abs=1e-9)


def test_leading_that_would_begin_far_above_the_data():
    """500 of 1000: 998, 996 ..; they are drawn together, and their number stays."""
    found = cosine_timesteps("leading", 500)
    assert found == pytest.approx([i * LAST / 499 for i in range(499, -1, -1)], abs=1e-9)


@pytest.mark.parametrize("name", WHOLE)
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
