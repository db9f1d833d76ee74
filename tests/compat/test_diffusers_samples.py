"""What pipelines do with KDiffScheduler beside its steps, and between them: noise is added, samples
are blended, attributes read. Against diffusers' own schedulers."""

import copy
import math

import diffusers
import numpy as np
import pytest
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.samplers import REGISTRY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DDIM = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
SHAPE = (3, 4, 4)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, N = normal(3, *SHAPE), normal(3, *SHAPE, seed=2)


def network(z, t):
    return 0.8 * z + 0.2 * torch.sin(2 * z + t / 300)


def close(ours, theirs, tolerance=1e-5):
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


# --- noise ---------------------------------------------------------------------------------------

ASKED = [
    torch.tensor([0, 400, 999]),
    torch.tensor([500]),
    torch.tensor(500),
    torch.tensor([10.0, 20.0, 30.0]),
    [0, 400, 999],
    (7,),
    500,
    np.array([1, 2, 3]),
]


def as_tensor(timesteps):
    return torch.as_tensor(timesteps).reshape(-1).long()


@pytest.mark.parametrize("asked", ASKED, ids=repr)
@pytest.mark.parametrize("steps", [None, 7])
def test_add_noise_at_training_timesteps(asked, steps):
    """A timestep for each sample, as in training scripts, or one for all samples."""
    ours = KDiffScheduler.from_config(DDIM.config)
    if steps:
        ours.set_timesteps(steps)
    theirs = DDIM.add_noise(X, N, as_tensor(asked))
    close(ours.add_noise(X, N, asked), theirs)


def test_add_noise_within_a_run():
    """Noise has the grid's own levels, even where several of them have one timestep."""
    ours = KDiffScheduler.from_config(DDIM.config, sampler="heun", sigma_max=100.0)
    ours.set_timesteps(12)
    assert ours.timesteps[:5].tolist() == [999] * 5
    for begin in (0, 2, 4, 8):
        ours.set_begin_index(begin)
        sigma = ours.sigmas[begin].double()
        expected = (X + sigma * N) / (1 + sigma**2).sqrt()
        close(ours.add_noise(X, N, ours.timesteps[begin : begin + 1]), expected.float())
    for i, t in enumerate(ours.timesteps[:-1]):
        ours.set_begin_index(0)
        ours.step(X, t, X)
        sigma = ours.sigmas[i + 1].double()
        expected = (X + sigma * N) / (1 + sigma**2).sqrt()
        close(ours.add_noise(X, N, ours.timesteps[i + 1]), expected.float())


@pytest.mark.parametrize("steps", [None, 7])
def test_scale_noise(steps):
    theirs = copy.deepcopy(FLOW)
    ours = KDiffScheduler.from_config(theirs.config)
    if steps:
        theirs.set_timesteps(steps)
        ours.set_timesteps(steps)
    for i in (0, 1, 5):
        t, own = theirs.timesteps[i : i + 1], ours.timesteps[i : i + 1]
        expected = theirs.scale_noise(X, t.repeat(3), N)
        close(ours.scale_noise(X, own, N), expected)
        close(ours.scale_noise(X, own.repeat(3), N), expected)
        close(ours.add_noise(X, N, own), expected)
    assert torch.equal(ours.scale_noise(X, 0.0, N), X)
    with pytest.raises(ValueError, match="needs noise"):
        ours.scale_noise(X, 500.0)


def test_noise_of_an_inverted_flow():
    ours = KDiffScheduler.from_config(FLOW.config, invert_sigmas=True)
    close(ours.add_noise(X, N, 900.0), 0.9 * X + 0.1 * N)


def test_get_velocity():
    theirs = diffusers.DDPMScheduler(**BETAS)
    ours = KDiffScheduler.from_config(theirs.config)
    for asked in ASKED:
        close(ours.get_velocity(X, N, asked), theirs.get_velocity(X, N, as_tensor(asked)), 1e-4)
    with pytest.raises(ValueError, match="noise - sample"):
        KDiffScheduler.from_config(FLOW.config).get_velocity(X, N, 500)


def test_one_image_and_many_noises():
    ours = KDiffScheduler.from_config(DDIM.config)
    t = torch.tensor([500])
    close(ours.add_noise(X[:1], N, t), DDIM.add_noise(X[:1], N, t))


def test_half_precision_noise():
    ours = KDiffScheduler.from_config(FLOW.config)
    noise = ours.add_noise(X.half(), N.half(), torch.tensor([1000.0]))
    assert noise.dtype == torch.float16
    assert torch.allclose(noise, N.half(), atol=1e-3)


def test_what_does_not_fit():
    ours = KDiffScheduler.from_config(DDIM.config)
    with pytest.raises(ValueError, match="2 timesteps for 3 samples"):
        ours.add_noise(X, N, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="does not fit"):
        ours.add_noise(X, N[:2], torch.tensor([1]))
    for t in (-1, 1000):
        with pytest.raises(ValueError, match="is not one of the scheduler's timesteps"):
            ours.add_noise(X, N, t)


# --- attributes ----------------------------------------------------------------------------------


def test_alphas():
    ours = KDiffScheduler.from_config(DDIM.config)
    for name in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod"):
        assert torch.equal(getattr(ours, name), getattr(DDIM, name))
    theirs = diffusers.DDIMScheduler(**BETAS, set_alpha_to_one=False)
    ours = KDiffScheduler.from_config(DDIM.config, schedule="leading", final="sigma_min")
    ours.set_timesteps(5)
    assert torch.equal(ours.final_alpha_cumprod, theirs.final_alpha_cumprod)


def test_training_sigmas():
    theirs = diffusers.EulerDiscreteScheduler(**BETAS)
    ours = KDiffScheduler.from_config(theirs.config)
    assert torch.allclose(ours.sigmas, theirs.sigmas, rtol=1e-5)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert len(ours) == len(theirs) == 1000


def test_indices():
    ours = KDiffScheduler.from_config(DDIM.config, sampler="heun")
    assert ours.step_index is ours.begin_index is ours.num_inference_steps is None
    assert float(ours.init_noise_sigma) == 1
    ours.set_timesteps(4)
    assert ours.step_index is ours.begin_index is None
    sigma = ours.sigmas[0]
    assert isinstance(ours.init_noise_sigma, torch.Tensor)
    assert float(ours.init_noise_sigma) == pytest.approx(float(sigma / (1 + sigma**2).sqrt()))
    assert [ours.index_for_timestep(t) for t in ours.timesteps] == [0, 2, 2, 4, 4, 6, 6]
    assert ours.index_for_timestep(torch.tensor(3.0), torch.tensor([9.0, 3.0])) == 1
    with pytest.raises(ValueError, match="5000 is not one of"):
        ours.index_for_timestep(5000)
    ours.set_begin_index(2)
    assert (ours.begin_index, ours.step_index) == (2, None)
    z = X
    for i in range(2, 7):
        z = ours.step(0.1 * z, ours.timesteps[i], z).prev_sample
        assert ours.step_index == i + 1


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("config", [DDIM.config, FLOW.config], ids=["betas", "flow"])
def test_sigmas_are_there_in_every_step(name, config):
    ours = KDiffScheduler.from_config(config, sampler=name)
    ours.set_timesteps(4)
    assert len(ours.sigmas) == len(ours.timesteps) + 1
    assert ours.sigmas[-1] == 0
    if config is FLOW.config:
        assert torch.allclose(ours.sigmas[:-1] * 1000, ours.timesteps)
    else:
        clock = [ours.precond(s).c_noise for s in ours.sigmas[:-1].tolist()]
        assert ours.timesteps.tolist() == pytest.approx(clock, rel=1e-4, abs=1e-3)


def test_what_a_step_cannot_take():
    ours = KDiffScheduler.from_config(DDIM.config)
    ours.set_timesteps(3)
    t = ours.timesteps
    with pytest.raises(ValueError, match="all samples must be at one timestep"):
        ours.step(X, t, X)
    with pytest.raises(ValueError, match=r"said \(1, 3, 4, 4\) of a \(3, 3, 4, 4\) sample"):
        ours.step(X[:1], t[:1].repeat(3), X)


def test_copies_are_independent():
    """LTX-2 makes such a copy for its audio."""
    ours = KDiffScheduler.from_config(FLOW.config)
    ours.set_timesteps(3)
    other = copy.deepcopy(ours)
    ours.step(X, ours.timesteps[0], X)
    assert (ours.step_index, other.step_index) == (1, None)
    assert torch.equal(other.timesteps, ours.timesteps)


# --- samples that are changed between steps ------------------------------------------------------

MASK = (torch.arange(4) < 2).float()


def inpaint(scheduler, z=N, in_place=False):
    """What StableDiffusionInpaintPipeline does with a network that has no mask input."""
    timesteps = scheduler.timesteps
    scale = getattr(scheduler, "scale_model_input", lambda z, t: z)
    for i, t in enumerate(timesteps):
        z = scheduler.step(network(scale(z, t), t), t, z, return_dict=False)[0]
        known = X
        if i + 1 < len(timesteps):
            t = timesteps[i + 1 : i + 2].repeat(len(X))
            flow = hasattr(scheduler, "scale_noise")
            known = scheduler.scale_noise(X, t, N) if flow else scheduler.add_noise(X, N, t)
        if in_place:
            z[..., :2] = known[..., :2]
        else:
            z = (1 - MASK) * z + MASK * known
    return z


@pytest.mark.parametrize("in_place", [True, False])
def test_inpainting_with_a_flow(in_place, monkeypatch):
    theirs = copy.deepcopy(FLOW)
    ours = KDiffScheduler.from_config(theirs.config, sampler="euler")
    theirs.set_timesteps(6)
    ours.set_timesteps(6)
    changed = inpaint(ours, in_place=in_place)
    close(changed, inpaint(theirs))
    monkeypatch.setitem(globals(), "MASK", torch.zeros(4))
    assert (inpaint(ours) - changed).abs().max() > 0.1


SOLVERS = [
    ("ddim", diffusers.DDIMScheduler, {"clip_sample": False}),
    ("dpmpp_2m", diffusers.DPMSolverMultistepScheduler, {}),
    ("unipc", diffusers.UniPCMultistepScheduler, {}),
    ("euler", diffusers.EulerDiscreteScheduler, {}),
    ("heun", diffusers.HeunDiscreteScheduler, {}),
    ("lms", diffusers.LMSDiscreteScheduler, {}),
]


@pytest.mark.parametrize(("name", "peer", "config"), SOLVERS)
def test_inpainting_with_betas(name, peer, config):
    """Schedulers of k-diffusion's kind have samples whose noise is sigma n."""
    theirs = peer(**BETAS, **config, timestep_spacing="trailing")
    theirs.set_timesteps(5)
    ours = KDiffScheduler.from_config(theirs.config, sampler=name)
    ours.set_timesteps(timesteps=list(dict.fromkeys(theirs.timesteps.tolist())))
    start = N * ours.init_noise_sigma
    exploding = float(theirs.init_noise_sigma) > 1
    close(inpaint(ours, start), inpaint(theirs, ours.sigmas[0] * N if exploding else start))


def test_unchanged_samples_keep_their_precision():
    """In half precision, only the changed part is taken from the sample."""
    ours = KDiffScheduler.from_config(DDIM.config, sampler="euler")
    results = []
    for change in (False, True):
        ours.set_timesteps(20)
        z = N.half()
        for t in ours.timesteps:
            z = ours.step(0.1 * z, t, z).prev_sample.clone()
            if change:
                z[..., 0] += 0.25
        results.append(z)
    assert torch.equal(results[0][..., 1:], results[1][..., 1:])
    assert not torch.equal(results[0][..., 0], results[1][..., 0])


def test_the_start_is_that_of_kdiff():
    """c_in(sigma) sigma n: diffusers starts from n itself on a grid of leading timesteps."""
    ours = KDiffScheduler.from_config(DDIM.config, schedule="leading")
    ours.set_timesteps(10)
    sigma = kdiff.schedule("leading", 10, ours.precond)[0]
    assert float(ours.init_noise_sigma) == pytest.approx(sigma / math.hypot(1, sigma))
    assert 1 - float(ours.init_noise_sigma) == pytest.approx(7e-3, rel=0.1)
