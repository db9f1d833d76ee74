"""KDiffScheduler's interface: where a loop may start, noise, saved configurations, errors."""

import diffusers
import pytest
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.samplers import REGISTRY
from scheduler_loops import CONFIGS, SEEDS, SHAPE, close, loop, make_model, make_unet, normal, unet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


def test_what_a_scheduler_has_by_default_counts():
    """diffusers leaves defaults out when a config of one class makes a scheduler of another."""
    given = diffusers.LCMScheduler(prediction_type="v_prediction")  # scaled_linear by default
    expected = given.alphas_cumprod.double()
    for config in (given, given.config):
        made = KDiffScheduler.from_config(config).precond
        assert made.name == "v"
        assert made.sigmas == pytest.approx(((1 - expected) / expected).sqrt().tolist())


# --- starting in the middle ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "dpmpp_sde", "unipc", "ddim"])
@pytest.mark.parametrize("told", [True, False])
def test_image_to_image(name, told):
    """Skip 3 of 8 steps and start from a noised image, like StableDiffusionImg2ImgPipeline."""
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
    """Noise comes from seeds, a generator or the bits of the start, never from the global one."""
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
    answer = lambda x, t: network(x, t).sample  # noqa: E731
    model = make_model(CONFIGS["eps"], answer, learned_variance=True)
    ours = kdiff.sample(model, "euler", steps=3, seeds=SEEDS)
    close(loop(scheduler, kdiff.Noise(SEEDS, SHAPE).initial(), answer), ours)


def test_learned_variance_is_for_samplers_that_ask_for_it():
    network, options = make_unet(out_channels=6), {"variance": "learned"}
    settings = {"sampler": "ddpm", "options": options, "schedule": "karras", "seeds": SEEDS}
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], **settings)
    answer = lambda x, t: network(x, t).sample  # noqa: E731
    model = make_model(CONFIGS["eps"], answer, learned_variance=True)
    ours = kdiff.sample(model, "ddpm", steps=3, seeds=SEEDS, options=options)
    x = kdiff.Noise(SEEDS, SHAPE).initial()
    scheduler.set_timesteps(3)
    close(loop(scheduler, x, answer), ours)
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match="what answers gives none: choose another variance"):
        loop(scheduler, x, lambda x, t: network(x, t).sample[:, :3])


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
        KDiffScheduler.from_config(diffusers.VQDiffusionScheduler(100).config).set_timesteps(3)


@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].limit is None])
def test_sigmas_are_those_asked_for(name):
    scheduler = KDiffScheduler.from_config(CONFIGS["eps"], sampler=name)
    scheduler.set_timesteps(4)
    ((_, states),) = kdiff.run(make_model(CONFIGS["eps"]), scheduler.plan, [0])
    assert torch.equal(scheduler.sigmas, torch.tensor([state.sigma for state in states]))
