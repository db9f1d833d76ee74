"""Prompts to latents as diffusers' own pipelines have them, on tiny random networks."""

import diffusers
import numpy as np
import pytest

import kdiff
import text_pipelines
from diffusers_networks import close

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

STEPS, SCALE = 5, 4.0
PROMPTS, NEGATIVE = ["a photo of a red cat", "blue dog"], "blurry"


def saved(pipe, folder):
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe, kdiff.load(folder)


def start(model):
    return kdiff.Noise(range(len(PROMPTS)), model.shape).initial()


def ours(model, scale=SCALE, negative=NEGATIVE, schedule="trailing", **told):
    """Guided by two calls, unless `scale` is None."""
    cond = model.encode(PROMPTS, negative, **told)
    own = {key: rows for key, rows in cond.items() if not key.startswith(("null_", "negative_"))}
    without = {k: cond.get(f"negative_{k}", cond.get(f"null_{k}", v)) for k, v in own.items()}

    def guided(x, sigma):
        u = model(x, sigma, **without)
        return u + scale * (model(x, sigma, **own) - u)

    plan = kdiff.plan(model, "euler", steps=STEPS, schedule=schedule)
    asked = {"seeds": [0, 1], "shape": model.shape}
    denoise, told = (model, own) if scale is None else (guided, {})
    ((_, states),) = kdiff.run(denoise, plan, **asked, cond=told)
    *_, last = states
    return last.x


def theirs(pipe, model, latents=None, negative=NEGATIVE, steps=STEPS, **asked):
    asked = {"guidance_scale": SCALE, **asked}
    if negative is not None:
        asked["negative_prompt"] = [negative] * len(PROMPTS)
    width, height = model.size
    return pipe(
        PROMPTS,
        width=width,
        height=height,
        latents=start(model) if latents is None else latents,
        num_inference_steps=steps,
        output_type="latent",
        **asked,
    ).images


def sizes(model, *pairs):
    return [model.resized(*size) for size in [(None, None), *pairs]]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_stable_diffusion(prediction, tmp_path):
    """1, and 2, which predicts v."""
    made = text_pipelines.stable_diffusion(tmp_path, prediction_type=prediction)
    pipe, whole = saved(made, tmp_path / "sd")
    for model in sizes(whole, (32, 16), (8, 24)):
        close(ours(model), theirs(pipe, model))
    close(ours(model, negative=None), theirs(pipe, model, negative=None))
    close(ours(model, None), theirs(pipe, model, guidance_scale=1.0))
    latents = ours(model)
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    close(model.decode(latents), images)


@pytest.mark.parametrize("zeros", [True, False])
def test_stable_diffusion_xl(zeros, tmp_path):
    made = text_pipelines.stable_diffusion_xl(tmp_path, force_zeros_for_empty_prompt=zeros)
    pipe, whole = saved(made, tmp_path / "xl")
    for model in sizes(whole, (8, 24)):
        close(ours(model), theirs(pipe, model))
    close(ours(model, negative=None), theirs(pipe, model, negative=None))
    close(ours(model, negative=""), theirs(pipe, model, negative=""))


EVEN = np.linspace(1, 1 / STEPS, STEPS)  # its own begins and ends so only for a shift of 1


def test_stable_diffusion_3(tmp_path):
    pipe, whole = saved(text_pipelines.stable_diffusion_3(tmp_path, shift=3.0), tmp_path / "sd3")
    for model in sizes(whole, (16, 8), (8, 12)):
        close(ours(model), theirs(pipe, model, sigmas=EVEN))
    close(ours(model, negative=None), theirs(pipe, model, negative=None, sigmas=EVEN))


def test_stable_diffusion_3_without_t5(tmp_path):
    made = text_pipelines.stable_diffusion_3(tmp_path)
    made.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe, model = saved(made, tmp_path / "sd3")
    close(ours(model), theirs(pipe, model, sigmas=EVEN))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_shift_by_the_size(kind, tmp_path):
    flow = {"base_image_seq_len": 8, "max_image_seq_len": 64, "time_shift_type": kind}
    made = text_pipelines.stable_diffusion_3(tmp_path, use_dynamic_shifting=True, **flow)
    pipe, whole = saved(made, tmp_path / "sd3")
    found = set()
    for model in sizes(whole, (16, 8)):
        close(ours(model, schedule="linspace"), theirs(pipe, model))
        times = [sigma / (1 + sigma) for sigma in kdiff.schedule("linspace", STEPS, model)[:-1]]
        assert times == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), abs=2e-6)
        found.add(times[1])
    assert len(found) == 2


@pytest.mark.parametrize("embeds", [True, False], ids=["dev", "schnell"])
def test_flux(embeds, tmp_path):
    flow = {"use_dynamic_shifting": True, "shift": 3.0} if embeds else {"shift": 1.0}
    made = text_pipelines.flux(tmp_path, guidance_embeds=embeds, **flow)
    pipe, whole = saved(made, tmp_path / "flux")
    for model in (whole.resized(16, 16), whole.resized(8, 20)):
        expected = flux_latents(pipe, model, guidance_scale=3.5, negative=None)
        close(ours(model, None), expected)
    close(ours(model), flux_latents(pipe, model, guidance_scale=3.5, true_cfg_scale=SCALE))
    if embeds:
        expected = flux_latents(pipe, model, guidance_scale=1.5)
        close(ours(model, None, distilled_guidance=1.5), expected)


@pytest.mark.parametrize("steps", [4, 7, 28])
def test_the_timesteps_of_flux(steps, tmp_path):
    made = text_pipelines.flux(tmp_path, use_dynamic_shifting=True)
    pipe, model = saved(made, tmp_path / "flux")
    model = model.resized(64, 32)
    theirs(pipe, model, pipe._pack_latents(start(model), *start(model).shape), steps=steps)
    times = [sigma / (1 + sigma) for sigma in kdiff.schedule("even", steps, model)]
    assert times == pytest.approx(pipe.scheduler.sigmas.tolist(), abs=1e-5)


def flux_latents(pipe, model, **asked):
    n = start(model)
    packed = theirs(pipe, model, pipe._pack_latents(n, *n.shape), **asked)
    width, height = model.size
    return pipe._unpack_latents(packed, height, width, pipe.vae_scale_factor)
