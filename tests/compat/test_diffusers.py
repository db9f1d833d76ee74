"""KDiffScheduler in loops like those of diffusers' pipelines, against kdiff.sample."""

import diffusers
import pytest
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.samplers import REGISTRY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TOLERANCE = 1e-5
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

SEEDS = [3, 4]
SHAPE = (3, 8, 8)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "eps": diffusers.DDIMScheduler(**BETAS).config,
    "v": diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **BETAS).config,
    "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config,
}


def test_what_a_scheduler_has_by_default_counts():
    """diffusers leaves it out when a config of one class makes a scheduler of another."""
    given = diffusers.LCMScheduler(prediction_type="v_prediction")  # scaled_linear, by default
    expected = given.alphas_cumprod.double()
    for config in (given, given.config):
        made = KDiffScheduler.from_config(config).precond
        assert made.name == "v"
        assert made.sigmas == pytest.approx(((1 - expected) / expected).sqrt().tolist())


def make_unet(**config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            **config,
        )
    return network.eval().requires_grad_(False)


UNET = make_unet()
WIDE = make_unet().double()


def unet(x, t, **cond):
    return (WIDE if x.dtype == torch.float64 else UNET)(x, t).sample


def make_model(config, network=unet):
    """kdiff's denoiser of the same network."""
    return kdiff.Denoiser(network, KDiffScheduler.from_config(config).precond, shape=SHAPE)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loop(scheduler, n, network=unet, generator=None):
    """What StableDiffusionPipeline does between prompt and VAE, from the noise n."""
    latents = n * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        z = scheduler.scale_model_input(latents, t)
        latents = scheduler.step(network(z, t), t, latents, generator, return_dict=False)[0]
    return latents


def close(result, expected):
    assert (result - expected).abs().max() < TOLERANCE * expected.abs().max()


CHURN = {"S_churn": 10, "S_noise": 1.0}
CASES = [
    *((name, {}, {}) for name in REGISTRY),
    *((name, s.ode, {}) for name, s in REGISTRY.items() if s.ode),
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
    # float64, since rounding at the flow's sigma of 3000 is seen in the fifth digit
    wide = {"dtype": torch.float64, "seeds": SEEDS}
    ours = kdiff.sample(model, name, steps=5, options=options, **wide, **planned)
    close(loop(scheduler, kdiff.Noise(SEEDS, SHAPE).initial().double()), ours)
    assert len(scheduler.timesteps) == kdiff.plan(model, name, steps=5, **planned).nfe


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn(name):
    """The start is at the first evaluation's level, as noise has been added to it by then."""
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
    """It neither scales its start nor its inputs, and clamps the result to images."""
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
    """The pipeline doubles the batch and copies one half over the other in every step; noise from
    the bits of the start is the same for both."""
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
    """Classifier-free guidance with embeddings; half the pipeline's dtype is not the solver's."""
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


# --- starting in the middle ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "dpmpp_sde", "unipc", "ddim"])
@pytest.mark.parametrize("told", [True, False])
def test_image_to_image(name, told):
    """As StableDiffusionImg2ImgPipeline: skip 3 of 8 steps, start from a noised image."""
    scheduler = KDiffScheduler.from_config(
        CONFIGS["eps"], sampler=name, schedule="karras", seeds=SEEDS
    )
    scheduler.set_timesteps(8)
    first = 3 * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if told:
        scheduler.set_begin_index(first)
    image, n = normal(2, *SHAPE), normal(2, *SHAPE, seed=2)
    latents = scheduler.add_noise(image, n, timesteps[:1].repeat(2))
    for t in timesteps:
        latents = scheduler.step(unet(latents, t), t, latents).prev_sample
    model = make_model(CONFIGS["eps"])
    sigmas = scheduler.plan.sigmas[3:]
    plan = kdiff.plan(model, name, sigmas=sigmas)
    *_, last = kdiff.drive(model, plan, image + sigmas[0] * n, kdiff.Noise(SEEDS, SHAPE))
    close(latents, last.x)


def test_samplers_that_cannot_start_in_the_middle():
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler="heun")
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(3)
    with pytest.raises(ValueError, match="heun cannot begin at evaluation 3"):
        scheduler.step(normal(1, *SHAPE), 0, normal(1, *SHAPE))
    with pytest.raises(ValueError, match=r"5000 is not one of"):
        scheduler.add_noise(normal(1, *SHAPE), normal(1, *SHAPE), torch.tensor([5000.0]))


# --- noise ---------------------------------------------------------------------------------------


def test_noise_sources():
    """Seeds, or a generator, or the bits of the start; never the global generator."""
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler="dpmpp_sde")
    n = normal(2, *SHAPE)

    def run(generator=None, n=n):
        scheduler.set_timesteps(4)
        return loop(scheduler, n, generator=generator)

    torch.manual_seed(0)
    before = torch.get_rng_state()
    plain = run()
    assert torch.equal(plain, run())
    assert torch.allclose(plain[1:], run(n=n[1:]), rtol=1e-3, atol=1e-3)
    seeded = [run(torch.Generator().manual_seed(k)) for k in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.allclose(seeded[0], seeded[2], atol=1e-2)
    listed = run([torch.Generator().manual_seed(k) for k in (1, 2)])
    assert torch.allclose(listed[:1], seeded[0][:1], rtol=1e-3, atol=1e-3)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_must_fit():
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler="dpmpp_sde", seeds=[1])
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="1 seeds for 2 samples"):
        loop(scheduler, normal(2, *SHAPE))


# --- the interface -------------------------------------------------------------------------------


def test_a_sample_of_another_shape_is_refused():
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"])
    scheduler.set_timesteps(4)
    x, (t, u, *_) = normal(1, *SHAPE), scheduler.timesteps
    out = scheduler.step(unet(x, t), t, x)
    assert out.pred_original_sample.shape == x.shape
    with pytest.raises(ValueError, match=r"was \(1, 3, 8, 8\) in the last step, and is \(2, 3"):
        scheduler.step(unet(x, t), u, normal(2, *SHAPE))


def test_learned_variance_is_dropped():
    network = make_unet(out_channels=6)
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler="euler", schedule="karras")
    scheduler.set_timesteps(3)
    model = make_model(CONFIGS["eps"], lambda x, t: network(x, t).sample)
    ours = kdiff.sample(model, "euler", steps=3, seeds=SEEDS)
    n = kdiff.Noise(SEEDS, SHAPE).initial()
    close(loop(scheduler, n, lambda z, t: network(z, t).sample), ours)


def test_config_is_kept_and_saved(tmp_path):
    scheduler = KDiffScheduler.from_config(
        CONFIGS["flow"], sampler="DPM++ 2M Karras", options={"solver_type": "heun"}, rho=5
    )
    scheduler.save_pretrained(tmp_path)
    for other in (
        KDiffScheduler.from_config(scheduler.config),
        KDiffScheduler.from_pretrained(tmp_path),
    ):
        scheduler.set_timesteps(4)
        other.set_timesteps(4)
        assert other.plan == scheduler.plan
        assert other.config.shift == 3.0
    assert KDiffScheduler.from_config(scheduler.config, sampler="heun").order == 2


def test_errors():
    with pytest.raises(ValueError, match="unknown sampler"):
        KDiffScheduler.from_config(CONFIGS["eps"], sampler="hoin")
    with pytest.raises(ValueError, match="call set_timesteps first"):
        KDiffScheduler.from_config(CONFIGS["eps"]).step(normal(1, 3), 1, normal(1, 3))
    with pytest.raises(ValueError, match="no setting 'smapler'"):
        KDiffScheduler.from_config(CONFIGS["eps"], smapler="heun").set_timesteps(3)
    with pytest.raises(ValueError, match="is not supported"):
        KDiffScheduler.from_config(diffusers.EDMEulerScheduler().config).set_timesteps(3)


@pytest.mark.parametrize("name", REGISTRY)
def test_sigmas_are_those_asked_for(name):
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler=name)
    scheduler.set_timesteps(4)
    ((_, states),) = kdiff.run(make_model(CONFIGS["eps"]), scheduler.plan, [0])
    assert torch.equal(scheduler.sigmas, torch.tensor([state.sigma for state in states]))
