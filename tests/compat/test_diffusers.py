"""KDiffScheduler in loops like those of diffusers' pipelines, against kdiff.sample."""

import diffusers
import pytest
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.samplers import REGISTRY
from scheduler_loops import BETAS, CONFIGS, SEEDS, SHAPE, UNET, close, loop, make_model, normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


CHURN = {"S_churn": 10, "S_noise": 1.0}
# test_diffusers_adaptive has the others, whose steps depend on the last digit of their errors.
FIXED = {name: s for name, s in REGISTRY.items() if s.limit is None}
CASES = [
    *((name, {}, {}) for name in FIXED),
    *((name, s.ode, {}) for name, s in FIXED.items() if s.ode),
    ("unipc", {"order": 3}, {"schedule": "exponential", "final": "sigma_min"}),
    ("heun", {}, {"final": "sigma_min", "schedule": "vp"}),
    ("dpmpp_2m", {}, {"schedule": "trailing"}),
]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(("name", "options", "planned"), CASES)
def test_every_sampler(name, options, planned, kind):
    planned = {"schedule": "karras", **planned}
    model = make_model(CONFIGS[kind])
    scheduler = KDiffScheduler.from_config(
        CONFIGS[kind], sampler=name, options=options, seeds=SEEDS, **planned
    )
    scheduler.set_timesteps(5)
    # float64, because rounding at the flow's sigma of 3000 shows in the fifth digit
    wide = {"dtype": torch.float64, "seeds": SEEDS}
    ours = kdiff.sample(model, name, steps=5, options=options, **wide, **planned)
    close(loop(scheduler, kdiff.Noise(SEEDS, SHAPE).initial().double()), ours)
    assert (
        len(scheduler.timesteps) == kdiff.plan(model, name, steps=5, options=options, **planned).nfe
    )


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn(name):
    """The start is at the level of the first evaluation, where noise has already been added."""
    model = make_model(CONFIGS["eps"])
    scheduler = KDiffScheduler.from_config(
        CONFIGS["eps"], sampler=name, options=CHURN, seeds=SEEDS, sigma_max=10
    )
    scheduler.set_timesteps(5)
    plan = kdiff.plan(model, name, steps=5, options=CHURN, sigma_max=10)
    ((_, states),) = kdiff.run(model, plan, SEEDS)
    first, *_, last = states
    assert first.sigma > plan.sigmas[0]
    close(loop(scheduler, first.x / first.sigma), last.x)


@pytest.mark.parametrize("sampler", ["unipc", "heun", "dpmpp_2m_sde"])
def test_ddpm_pipeline(sampler):
    """The pipeline scales neither its start nor its inputs, and clamps the result to images."""
    pipe = diffusers.DDPMPipeline(UNET, diffusers.DDPMScheduler(**BETAS))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler=sampler, seeds=SEEDS)
    calls = []
    handle = UNET.register_forward_hook(lambda *_: calls.append(1))
    images = pipe(
        2, torch.Generator().manual_seed(1), num_inference_steps=6, output_type="np"
    ).images
    handle.remove()
    model = make_model(pipe.scheduler.config)
    plan = kdiff.plan(model, sampler, steps=6)
    assert len(calls) == plan.nfe
    start = normal(2, *SHAPE) / model.precond(plan.sigmas[0]).c_in
    *_, last = kdiff.drive(model, plan, start, kdiff.Noise(SEEDS, SHAPE))
    ours = (last.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    close(torch.from_numpy(images), ours)


def test_ddim_pipeline():
    pipe = diffusers.DDIMPipeline(UNET, diffusers.DDIMScheduler(**BETAS))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler="dpmpp_2m")
    generator = torch.Generator().manual_seed(1)
    assert pipe(1, generator, num_inference_steps=3, output_type="np").images.shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match="eta is an option of the sampler"):
        pipe(1, generator, eta=0.5, num_inference_steps=3)


def test_guided_dit_pipeline():
    """The pipeline doubles the batch and copies one half over the other in every step. Noise from
    the bits of the start is the same for both halves."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, out_channels=8
        ).eval()
        vae = diffusers.AutoencoderKL(
            block_out_channels=(4,), norm_num_groups=2, latent_channels=4
        ).eval()
    pipe = diffusers.DiTPipeline(transformer, vae, diffusers.DDIMScheduler(**BETAS))
    pipe.set_progress_bar_config(disable=True)
    for sampler in ("unipc", "dpmpp_sde"):
        pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler=sampler)
        images = [
            pipe([1, 2], generator=torch.Generator().manual_seed(1), num_inference_steps=4,
                 output_type="np").images
            for _ in range(2)
        ]  # fmt: skip
        assert (images[0] == images[1]).all()


def test_stable_diffusion_loop():
    """Classifier-free guidance with prompt embeddings."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=4,
        ).requires_grad_(False)
    prompts = normal(2, 5, 12)

    def guided(x, t):
        both = torch.cat([torch.zeros_like(prompts), prompts])
        t = t if t.ndim == 0 else torch.cat([t, t])
        without, with_prompt = network(torch.cat([x, x]), t, both).sample.chunk(2)
        return without + 3 * (with_prompt - without)

    model = make_model(CONFIGS["eps"], guided)
    scheduler = KDiffScheduler.from_config(
        CONFIGS["eps"], sampler="dpmpp_2m_sde", schedule="karras", seeds=SEEDS
    )
    scheduler.set_timesteps(6)
    ours = kdiff.sample(model, "dpmpp_2m_sde", steps=6, seeds=SEEDS)
    close(loop(scheduler, kdiff.Noise(SEEDS, SHAPE).initial(), guided), ours)


def test_half_precision_samples_keep_a_wider_state():
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler="euler")
    scheduler.set_timesteps(20)
    n = normal(1, *SHAPE)
    exact = loop(scheduler, n, lambda z, t: 0.1 * z)
    half = loop(scheduler, n.half(), lambda z, t: 0.1 * z)
    assert half.dtype == torch.float16
    assert (half - exact).abs().max() < 3e-3 * exact.abs().max()
