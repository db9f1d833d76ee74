"""KDiffScheduler's grids and configurations, against diffusers' own schedulers."""

import ast
import logging
import math
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import kdiff
from kdiff.checkpoints.diffusers_scheduler import precond_of
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.compat.diffusers import config as keys

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FlowEuler = diffusers.FlowMatchEulerDiscreteScheduler
DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0}
EVEN = np.linspace(1, 1 / 6, 6).tolist()


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(z, t):
    return torch.sin(2 * z + t / 300) + 0.1 * z


def loop(scheduler, z):
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        z = scheduler.step(network(scaled, t), t, z, return_dict=False)[0]
    return z


def close(ours, theirs, tolerance=1e-5):
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


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
    """Wan's: UniPCMultistepScheduler rounds its timesteps."""
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    theirs = diffusers.UniPCMultistepScheduler(**config)
    ours = KDiffScheduler.from_config(theirs.config)
    theirs.set_timesteps(7)
    ours.set_timesteps(7)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), abs=2e-6)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1.001)


def test_an_inverted_flow():
    """Mochi's: the velocity points at the data, which are at time 1."""
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
    """`sigma_max` says nothing about a flow's own grid: without a schedule it is karras then."""
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
    """Each evaluation has its sigma, and there is one for the end."""
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
    ours = KDiffScheduler.from_config(theirs.config, schedule="trailing")  # chosen: it counts
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


# --- configurations ------------------------------------------------------------------------------


def settings_of_schedulers():
    """The keywords of every scheduler class in diffusers' source, installed extras or not."""
    for path in sorted(Path(diffusers.__file__).parent.glob("schedulers/**/*.py")):
        for found in ast.walk(ast.parse(path.read_text())):
            if isinstance(found, ast.ClassDef) and found.name.endswith("Scheduler"):
                for method in found.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        yield found.name, {a.arg for a in method.args.args} - {"self"}


def test_every_key_of_every_scheduler_is_known():
    known = {*keys.FOLLOWED, *keys.REPLACED, *keys.REFUSED, *keys.NEEDLESS}
    assert len(known) == sum(map(len, (keys.FOLLOWED, keys.REPLACED, keys.REFUSED, keys.NEEDLESS)))
    schedulers = list(settings_of_schedulers())
    assert len(schedulers) > 40
    for name, parameters in schedulers:
        assert parameters <= known, name


@pytest.mark.parametrize("key", sorted(keys.REFUSED))
def test_keys_of_other_kinds_of_models_are_refused(key):
    config = {**diffusers.DDIMScheduler(**BETAS).config, key: 0.5}
    with pytest.raises(ValueError, match=f"^{key} is not supported"):
        KDiffScheduler.from_config(config)
    KDiffScheduler.from_config(config | {key: None})


def test_schedulers_that_do_something_else_are_refused():
    for kind in (diffusers.DDIMInverseScheduler, diffusers.FlowMapEulerDiscreteScheduler):
        for given in (kind(), {**kind().config, "_class_name": kind.__name__}):
            with pytest.raises(ValueError, match=f"^{kind.__name__} is not supported"):
                KDiffScheduler.from_config(given)
    with pytest.raises(ValueError, match="EDMEulerScheduler is not supported"):
        KDiffScheduler.from_config(diffusers.EDMEulerScheduler())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_flow_sigmas": True}, "use_flow_sigmas with prediction_type 'epsilon'"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of use_karras_sigmas and"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type must be"),
        ({"time_shift_type": "cubic"}, "time_shift_type must be"),
        ({"timestep_type": "continuous"}, "timestep_type 'continuous' is not supported"),
        ({"lambda_min_clipped": "low"}, "lambda_min_clipped must be a number"),
        ({"prediction_type": "trigflow"}, "prediction_type 'trigflow' is not supported"),
    ],
    ids=str,
)
def test_values_that_cannot_be_followed(config, message):
    with pytest.raises(ValueError, match=message):
        KDiffScheduler.from_config({**diffusers.DDIMScheduler(**BETAS).config, **config})


@pytest.fixture
def lines():
    """What is logged."""
    diffusers.utils.logging.set_verbosity_warning()
    log, handler, found = logging.getLogger("kdiff.compat.diffusers.scheduler"), None, []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    yield found
    log.removeHandler(handler)
    diffusers.utils.logging.set_verbosity_error()


def test_what_is_left_out_is_said(lines):
    config = {**diffusers.DDIMScheduler(**BETAS, clip_sample=False).config}
    KDiffScheduler.from_config(config)
    assert lines == []
    made = KDiffScheduler.from_config({**config, "clip_sample": True, "use_new_sigmas": True})
    assert [line.split(":")[0] for line in lines] == [
        "unknown to KDiffScheduler, and left out",
        "clip_sample is left out",
    ]
    assert "use_new_sigmas" in lines[0]
    KDiffScheduler.from_config(made.config, clip=True)
    assert len(lines) == 3
    made = KDiffScheduler.from_config(config, sampler="DPM++ 2M Karras")
    made.set_timesteps(timesteps=[900, 100])
    assert lines[3:] == ["schedule left out: timesteps or sigmas are given"]
    made = KDiffScheduler.from_config(FlowEuler().config, final="sigma_min", sigma_max=80)
    made.set_timesteps(sigmas=[1.0, 0.5])
    assert lines[4:] == ["final, sigma_max left out: timesteps or sigmas are given"]


def test_changes_to_the_configuration(tmp_path):
    """As in UniPCMultistepScheduler.from_config(config, flow_shift=5)."""
    made = KDiffScheduler.from_config(FlowEuler().config, sampler="euler", shift=5.0)
    made.save_pretrained(tmp_path)
    for each in (made, KDiffScheduler.from_pretrained(tmp_path)):
        each.set_timesteps(4)
        assert each.config.shift == 5.0
        assert each.plan.sigmas[1] == pytest.approx(5 * 0.6683 / (1 - 0.6683), rel=1e-2)


@pytest.mark.parametrize(
    "config",
    [
        {"clip_sample": True, "clip_sample_range": 0.5},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5},
    ],
    ids=str,
)
def test_clipping_and_thresholding(config):
    theirs = diffusers.DDIMScheduler(**BETAS, **{"clip_sample": False} | config)
    ours = KDiffScheduler.from_config(theirs.config, sampler="ddim", schedule="leading", clip=True)
    theirs.set_timesteps(5)
    ours.set_timesteps(5)
    start = 2 * normal(2, 3, 4, 4)
    t = theirs.timesteps[0]
    shown = [s.step(network(start, t), t, start).pred_original_sample for s in (theirs, ours)]
    close(shown[1], shown[0])
    assert shown[0].abs().max() <= 1.0
    ours.set_timesteps(5)
    # DDIM goes on from the unlimited eps, a sampler from the limited denoised
    assert loop(ours, start).abs().max() <= 1.0


def test_errors_inside_properties_are_shown(monkeypatch):
    """ConfigMixin.__getattr__ would say that there is no such attribute."""
    ours = KDiffScheduler.from_config(FlowEuler().config)
    with pytest.raises(AttributeError, match="a flow has no betas"):
        _ = ours.alphas_cumprod
    assert not hasattr(ours, "betas")

    def broken(config):
        raise AttributeError("the true reason")

    monkeypatch.setattr("kdiff.compat.diffusers.levels.precond_for", broken)
    for name in ("precond", "sigmas", "timesteps"):
        with pytest.raises(AttributeError, match="the true reason"):
            getattr(ours, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ours.nothing
