"""Adaptive samplers in KDiffScheduler, where the length of the loop is not known in advance."""

import copy

import diffusers
import pytest
import torch

from kdiff.compat.diffusers import KDiffScheduler
from kdiff.driver import TooManyEvaluations
from scheduler_kinds import (
    BETAS,
    KEEP,
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


def test_an_edited_adaptive_sampler():
    options = {"limit": 300}  # of calls for the batch, in the pipeline
    scheduler = make("eps", "adaptive_by_sample", edits="painted", options=options)
    z, calls = loop(scheduler, start(scheduler))
    theirs, evaluations = expected(
        scheduler, "adaptive_by_sample", edits=["painted"], options=options
    )
    close(z, theirs)
    assert calls == evaluations


def test_timesteps_of_an_adaptive_sampler():
    """There are as many as the limit. The loop ends with the sampler, and then holds its levels."""
    scheduler = make("eps", "adaptive_by_sample", options={"limit": 80})
    assert len(scheduler.timesteps) == 80
    assert scheduler.plan.nfe is None
    z, calls = loop(scheduler, start(scheduler))
    assert STEPS < calls == scheduler.step_index < 80
    levels = scheduler.sigmas[:calls]
    assert (
        levels[1:] > levels[:-1]
    ).any()  # the levels of the second sample begin at the start again
    clock = [scheduler.precond(s).c_noise for s in levels.double().tolist()]
    assert scheduler.timesteps[:calls].tolist() == pytest.approx(clock, rel=1e-4, abs=1e-3)
    assert (scheduler.sigmas[calls:] == scheduler.plan.sigmas[-1]).all()
    assert torch.equal(scheduler.step(z, scheduler.timesteps[calls], z).prev_sample, z)


def test_a_loop_over_indices_bears_the_early_end():
    scheduler, other = make("eps", "adaptive"), make("eps", "adaptive")
    z = start(scheduler)
    for i in range(len(scheduler.timesteps)):
        t = scheduler.timesteps[i]
        z = scheduler.step(network(z, t), t, z).prev_sample
    theirs, calls = loop(other, start(other))
    assert torch.equal(z, theirs)
    assert scheduler.step_index == other.step_index == calls < 60
    assert torch.equal(loop(other, start(other))[0], z)  # a second run on the same timesteps


def test_what_an_adaptive_sampler_cannot_bear():
    scheduler = make("eps", "adaptive")
    with pytest.raises(ValueError, match="written as the sampler goes: do not copy them"):
        loop(scheduler, start(scheduler), scheduler.timesteps.clone())
    scheduler = make("eps", "adaptive_by_sample", options={"limit": 8})
    with pytest.raises(TooManyEvaluations, match="has not ended after 8 evaluations of the batch"):
        loop(scheduler, start(scheduler))


def test_inpainting_with_an_adaptive_sampler():
    """The known half is at the noise level of the next evaluation, and clean at the end."""
    scheduler = make("eps", "adaptive")
    known, noise = torch.full((2, *SHAPE), 0.3).double(), start(scheduler)
    z, timesteps = noise, scheduler.timesteps
    for i, t in enumerate(timesteps):
        z = scheduler.step(network(z, t), t, z).prev_sample
        level = scheduler.add_noise(known, noise, timesteps[i + 1 : i + 2])
        z = (1 - KEEP) * z + KEEP * level
    assert torch.equal(z[..., :2], known[..., :2])
    assert z.isfinite().all()


def test_ddpm_pipeline_calls_the_network_only_until_the_end():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8,),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        ).eval()
    calls = []
    unet.register_forward_pre_hook(lambda module, given: calls.append(float(given[1])))
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**BETAS))
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    pipe.scheduler = KDiffScheduler.from_config(config, sampler="adaptive", seeds=SEEDS)
    generator = torch.Generator().manual_seed(1)
    images = pipe(2, generator, num_inference_steps=STEPS, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    assert len(calls) == pipe.scheduler.step_index < 60
    assert calls == pipe.scheduler.timesteps[: len(calls)].tolist()


def test_copies_of_an_adaptive_scheduler():
    ours = make("eps", "adaptive")
    other = copy.deepcopy(ours)
    z, _ = loop(ours, start(ours))
    assert other.step_index is None
    assert len(list(other.timesteps)) == 60
    assert torch.equal(loop(other, start(other))[0], z)
