"""KDiffScheduler's configurations: each key is followed, replaced, refused or reported."""

import ast
import logging
from pathlib import Path

import diffusers
import pytest

from kdiff.compat.diffusers import KDiffScheduler
from kdiff.compat.diffusers import config as keys
from scheduler_grids import BETAS, FlowEuler, close, loop, network, normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()


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
    with pytest.raises(
        ValueError, match=r"DDIMInverseScheduler is not supported.*use kdiff\.invert"
    ):
        KDiffScheduler.from_config(diffusers.DDIMInverseScheduler())


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
    """The lines that KDiffScheduler logs."""
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
    """Keywords replace keys, as in UniPCMultistepScheduler.from_config(config, flow_shift=5)."""
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
    # DDIM goes on from the unlimited eps, but a sampler from the limited denoised
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
