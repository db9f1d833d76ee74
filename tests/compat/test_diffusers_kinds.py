"""Every kind of sampler that can be registered, and edits, in a loop like a pipeline's with
KDiffScheduler, against kdiff.sample in float64."""

import diffusers
import pytest
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.modifications import Modification
from scheduler_kinds import (
    CONFIGS,
    NAMES,
    SEEDS,
    SHAPE,
    STEPS,
    close,
    expected,
    loop,
    make,
    network,
    start,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("kinds"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_sampler(name, final, kind):
    scheduler = make(kind, name, final=final)
    z, calls = loop(scheduler, start(scheduler))
    theirs, evaluations = expected(scheduler, name)
    close(z, theirs)
    assert calls == evaluations
    if scheduler.plan.nfe is not None:
        assert len(scheduler.timesteps) == scheduler.plan.nfe == calls
    again, _ = loop(make(kind, name, final=final), start(scheduler))
    assert torch.equal(z, again)


EDITED = [
    (["clamped"], STEPS),
    (["clamped:most=0.3"], STEPS),
    (["painted"], STEPS),
    (["asked_twice"], 2 * STEPS),
    (["painted", "asked_twice", "clamped:most=2"], 2 * STEPS),
]


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize(("edits", "nfe"), EDITED, ids=str)
def test_edits(name, edits, nfe):
    scheduler = make("eps", name, edits=edits)
    assert len(scheduler.timesteps) == len(scheduler.sigmas) - 1 == nfe
    z, _ = loop(scheduler, start(scheduler))
    close(z, expected(scheduler, name, edits=edits)[0])
    assert not torch.allclose(z, expected(scheduler, name)[0], rtol=1e-3)


def test_edits_are_part_of_the_configuration(tmp_path):
    scheduler = make("eps", edits=Modification("clamped", {"most": 0.5}))
    scheduler.save_pretrained(tmp_path)
    other = KDiffScheduler.from_pretrained(tmp_path)
    other.set_timesteps(STEPS)
    assert other.plan == scheduler.plan
    assert other.plan.edits[0].options == {"most": 0.5}
    with pytest.raises(ValueError, match="unknown edit 'clampde'; did you mean clamped"):
        make("eps", edits=["clampde"])
    with pytest.raises(ValueError, match="most must be a number, at least 0, not '-1'"):
        make("eps", edits=["clamped:most=-1"])


# --- starting in the middle ----------------------------------------------------------------------


BEGUN = [
    ("kind_three_stages", [], 3),
    ("kind_asking_lists", [], 2),
    ("adaptive", [], 1),
    ("adaptive_by_sample", [], 1),
    ("dpmpp_2m", ["clamped", "asked_twice"], 2),
]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("name", "edits", "order"), BEGUN)
def test_image_to_image(name, edits, order, told):
    """Pipelines find the level of the third step by counting `order` evaluations a step."""
    scheduler = make("eps", name, edits=edits)
    assert scheduler.order == order
    sigmas, first = scheduler.plan.sigmas[2:], 2 * order
    if told:
        scheduler.set_begin_index(first)
    noise = kdiff.Noise(SEEDS, SHAPE, torch.float64).initial()
    timesteps = scheduler.timesteps[first:]
    z = scheduler.add_noise(torch.ones(2, *SHAPE).double(), noise, timesteps[:1])
    z, _ = loop(scheduler, z, timesteps)
    model = kdiff.Denoiser(network, scheduler.precond, shape=SHAPE)
    plan = kdiff.plan(model, name, sigmas=sigmas, edits=edits)
    source = kdiff.Noise(SEEDS, SHAPE, torch.float64)
    *_, last = kdiff.drive(model, plan, 1 + sigmas[0] * noise, source)
    close(z, last.x)


def test_a_restart_belongs_to_its_grid():
    """If it began later, it would go back to other levels."""
    scheduler = make("eps", "kind_restarting")
    scheduler.set_begin_index(1)
    with pytest.raises(ValueError, match="kind_restarting cannot begin at evaluation 1"):
        loop(scheduler, start(scheduler), scheduler.timesteps[1:])


# --- what is refused -----------------------------------------------------------------------------


def test_changes_that_a_pipeline_cannot_follow():
    for chosen in ({"name": "kind_starting_elsewhere"}, {"edits": ["changing_the_start"]}):
        scheduler = make("eps", **chosen)
        with pytest.raises(ValueError, match="changes the start before its first evaluation"):
            loop(scheduler, start(scheduler))
    scheduler = make("eps", "kind_asking_for_gradients")
    with pytest.raises(ValueError, match="kind_asking_for_gradients needs gradients"):
        loop(scheduler, start(scheduler))


def test_a_sampler_that_asks_what_it_does_not_declare():
    scheduler = make("eps", "kind_stopping")
    with pytest.raises(RuntimeError, match="kind_stopping ends after 1 evaluations, which is not"):
        loop(scheduler, start(scheduler))
    scheduler = make("eps", "kind_not_as_declared")
    with pytest.raises(RuntimeError, match=r"kind_not_as_declared asks at sigma = 15, which"):
        loop(scheduler, start(scheduler))
