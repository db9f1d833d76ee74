"""KDiffScheduler's grids of noise levels, against diffusers' own schedulers."""

import math

import diffusers
import numpy as np
import pytest
import torch

import kdiff
from kdiff.checkpoints.diffusers_scheduler import precond_of
from kdiff.compat.diffusers import KDiffScheduler
from scheduler_grids import BETAS, FlowEuler, close, loop, normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()


DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0}
EVEN = np.linspace(1, 1 / 6, 6).tolist()


# --- flows ---------------------------------------------------------------------------------------


FLOWS = [
    ({}, {"num_inference_steps": 6}),
    ({"shift": 3.0}, {"num_inference_steps": 6}),
    ({"shift": 3.0}, {"sigmas": EVEN}),
    ({"shift": 3.0}, {"sigmas": EVEN, "mu": 0.7}),
    ({"shift": 3.0}, {"sigmas": EVEN, "num_inference_steps": 6}),
    ({"shift": 3.0}, {"sigmas": EVEN, "timesteps": [900, 800, 600, 500, 300, 20]}),
    ({"shift": 3.0, "shift_terminal": 0.1}, {"num_inference_steps": 6}),
    (DYNAMIC, {"num_inference_steps": 6, "mu": 0.9}),
    (DYNAMIC, {"sigmas": EVEN, "mu": 1.15}),
    (DYNAMIC, {"sigmas": torch.tensor(EVEN), "mu": 1.15}),
    (DYNAMIC | {"time_shift_type": "linear"}, {"sigmas": EVEN, "mu": 2.0}),
    (DYNAMIC | {"shift_terminal": 0.1}, {"sigmas": EVEN, "mu": 1.15}),
    ({"use_karras_sigmas": True}, {"num_inference_steps": 6}),
    ({"use_exponential_sigmas": True, "shift": 3.0}, {"num_inference_steps": 6}),
    ({"use_beta_sigmas": True}, {"num_inference_steps": 6}),
    (DYNAMIC | {"use_beta_sigmas": True}, {"sigmas": EVEN, "mu": 1.15}),
    ({"invert_sigmas": True}, {"sigmas": EVEN}),
    ({}, {"timesteps": [1000, 700, 300, 50]}),
    ({}, {"timesteps": torch.tensor([980.5, 700, 300])}),
]


@pytest.mark.parametrize(("config", "asked"), FLOWS, ids=str)
def test_flow_grids(config, asked):
    theirs = FlowEuler(**config)
    ours = KDiffScheduler.from_config(theirs.config, sampler="euler")
    theirs.set_timesteps(**asked)
    ours.set_timesteps(**asked)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), rel=1e-6, abs=1e-3)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-6, abs=1e-6)
    start = normal(2, 3, 4, 4)
    close(loop(ours, start), loop(theirs, start))


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_the_flow_grid_of_solvers_for_betas_too(shift):
    """Wan's grid. UniPCMultistepScheduler rounds its timesteps."""
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    theirs = diffusers.UniPCMultistepScheduler(**config)
    ours = KDiffScheduler.from_config(theirs.config)
    theirs.set_timesteps(7)
    ours.set_timesteps(7)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), abs=2e-6)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1.001)


def test_an_inverted_flow():
    """Mochi's flow: the velocity points at the data, which are at time 1."""
    found = precond_of(FlowEuler(shift=3.0, invert_sigmas=True).config)
    assert found(1 / 3).c_noise == pytest.approx(750)
    assert found(1 / 3).c_out == pytest.approx(0.25)


def test_mu_moves_the_range_of_a_chosen_schedule():
    config = FlowEuler(**DYNAMIC).config
    ours = KDiffScheduler.from_config(config, sampler="euler", schedule="karras")
    ours.set_timesteps(5, mu=math.log(4.0))
    fixed = KDiffScheduler.from_config(FlowEuler(shift=4.0).config, schedule="karras")
    fixed.set_timesteps(5)
    assert ours.plan.sigmas == pytest.approx(fixed.plan.sigmas)


def test_a_range_is_of_the_schedules_of_kdiff():
    """`sigma_max` does not apply to a flow's own grid, so the default schedule is then karras."""
    ours = KDiffScheduler.from_config(FlowEuler().config, sigma_max=80)
    ours.set_timesteps(5)
    assert ours.plan.sigmas == kdiff.schedule("karras", 5, ours.precond, sigma_max=80)
    beta = diffusers.EulerDiscreteScheduler(**BETAS, use_beta_sigmas=True).config
    with pytest.raises(ValueError, match="the beta schedule has no setting 'rho'"):
        KDiffScheduler.from_config(beta, rho=5).set_timesteps(5)


@pytest.mark.parametrize("said", [{"final": "sigma_min"}, {"final_sigmas_type": "sigma_min"}])
def test_a_flow_that_does_not_end_at_zero(said):
    ours = KDiffScheduler.from_config(FlowEuler(shift=3.0).config, **said)
    ours.set_timesteps(5)
    whole = FlowEuler(shift=3.0)
    whole.set_timesteps(6)
    assert ours.sigmas.tolist() == pytest.approx(whole.sigmas[:-1].tolist(), abs=1e-6)
    assert len(ours.timesteps) == 5


def test_a_sampler_of_two_evaluations_on_a_given_grid():
    """Each evaluation has its sigma, and the end has one more."""
    ours = KDiffScheduler.from_config(FlowEuler().config, sampler="heun")
    ours.set_timesteps(sigmas=[1.0, 0.5, 0.25])
    assert ours.timesteps.tolist() == [1000, 500, 500, 250, 250]
    assert ours.sigmas.tolist() == pytest.approx([1, 0.5, 0.5, 0.25, 0.25, 0])
    assert ours.num_inference_steps == 3


def test_flow_training_levels():
    for config in ({}, {"shift": 3.0}, DYNAMIC):
        theirs = FlowEuler(**config)
        ours = KDiffScheduler.from_config(theirs.config)
        assert torch.allclose(ours.timesteps, theirs.timesteps, rtol=1e-5)
        assert torch.allclose(ours.sigmas[:-1], theirs.sigmas, rtol=1e-5)


# --- betas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"timesteps": [999, 700, 300, 1]},
        {"timesteps": np.array([801, 400, 0])},
        {"sigmas": [14.6, 6.2, 1.4, 0.3, 0.03, 0.0]},  # as in "Align your steps"
        {"sigmas": [14.6, 6.2, 1.4, 0.3]},
    ],
    ids=str,
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_given_grids(asked, prediction):
    theirs = diffusers.EulerDiscreteScheduler(**BETAS, prediction_type=prediction)
    ours = KDiffScheduler.from_config(theirs.config, sampler="euler")
    theirs.set_timesteps(**asked)
    ours.set_timesteps(**asked)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), rel=1e-4)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-4)
    x = normal(2, 3, 4, 4) * theirs.sigmas[0]
    close(loop(ours, x / math.hypot(1, theirs.sigmas[0])), loop(theirs, x), 1e-3)


@pytest.mark.parametrize("key", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_the_spacing_that_a_configuration_says(key):
    theirs = diffusers.EulerDiscreteScheduler(**BETAS, **{key: True})
    theirs.set_timesteps(9)
    ours = KDiffScheduler.from_config(theirs.config, sampler="euler")
    ours.set_timesteps(9)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-5)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), rel=1e-4, abs=1e-3)
    ours = KDiffScheduler.from_config(
        theirs.config, schedule="trailing"
    )  # a chosen schedule takes precedence
    ours.set_timesteps(10)
    assert ours.timesteps.tolist() == list(range(999, 0, -100))


def test_the_range_and_end_that_a_configuration_says():
    theirs = diffusers.EulerDiscreteScheduler(
        **BETAS, use_karras_sigmas=True, sigma_min=0.1, sigma_max=5.0, final_sigmas_type="sigma_min"
    )
    theirs.set_timesteps(6)
    ours = KDiffScheduler.from_config(theirs.config)
    ours.set_timesteps(5)
    assert ours.plan.sigmas == pytest.approx(theirs.sigmas[:-1].tolist())
    narrower = KDiffScheduler.from_config(theirs.config, sigma_max=3.0, final="zero")
    narrower.set_timesteps(5)
    assert narrower.plan.sigmas == kdiff.schedule("karras", 5, sigma_min=0.1, sigma_max=3.0)


def test_steps_offset():
    theirs = diffusers.DDIMScheduler(**BETAS, steps_offset=1)
    theirs.set_timesteps(10)
    ours = KDiffScheduler.from_config(theirs.config, schedule="leading")
    ours.set_timesteps(10)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()


def test_lambda_min_clipped():
    config = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -3.0}
    for spacing in ("linspace", "trailing"):
        theirs = diffusers.DPMSolverMultistepScheduler(**config, timestep_spacing=spacing)
        theirs.set_timesteps(10)
        ours = KDiffScheduler.from_config(theirs.config, schedule=spacing)
        ours.set_timesteps(10)
        assert ours.timesteps[0] == theirs.timesteps[0]
    ours = KDiffScheduler.from_config(theirs.config)
    ours.set_timesteps(10)
    assert 19 < ours.plan.sigmas[0] <= math.exp(3)


@pytest.mark.parametrize(
    ("config", "asked", "message"),
    [
        (DYNAMIC, {"num_inference_steps": 5}, "needs mu"),
        (DYNAMIC, {"sigmas": EVEN, "mu": 1e6}, "mu gives a shift of"),
        ({}, {"sigmas": [1.2, 0.5]}, r"sigmas must be in \(0, 1\]"),
        ({}, {"sigmas": []}, "one or more finite numbers"),
        ({}, {"sigmas": [1.0, math.nan]}, "one or more finite numbers"),
        ({}, {"sigmas": ["a"]}, "sigmas must be numbers"),
        ({}, {"sigmas": [10**400]}, "sigmas must be numbers"),
        ({}, {"sigmas": [0.5, 0.5, 0.2]}, "strictly decreasing"),
        ({}, {"timesteps": [1001, 20]}, r"timesteps must be in \(0, 1000\]"),
        ({}, {"timesteps": [900, 20], "num_inference_steps": 3}, "is 3, and 2 are given"),
        ({}, {"timesteps": [900, 20], "sigmas": [0.5]}, "only one of"),
        ({}, {"num_inference_steps": 0}, "num_inference_steps must be a whole number"),
        (None, {"timesteps": [900, 20], "sigmas": [5.0, 0.0]}, "only one of"),
        (None, {"timesteps": [1000, 20]}, "1000 is not one of the scheduler's timesteps"),
        (None, {"timesteps": [20, 900]}, "strictly decreasing"),
        (DYNAMIC, {"num_inference_steps": 5, "mu": "big"}, "mu must be a number"),
        ({}, {"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
    ],
    ids=str,
)
def test_grids_that_cannot_be(config, asked, message):
    made = diffusers.DDIMScheduler(**BETAS) if config is None else FlowEuler(**config)
    ours = KDiffScheduler.from_config(made.config)
    with pytest.raises(ValueError, match=message):
        ours.set_timesteps(**asked)
