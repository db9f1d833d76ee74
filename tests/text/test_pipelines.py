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


def guided(model, scale):
    """Classifier-free guidance by two calls."""

    def denoise(x, sigma, **cond):
        own = {k: v for k, v in cond.items() if not k.startswith(("null_", "negative_"))}
        without = {k: cond.get(f"negative_{k}", cond.get(f"null_{k}", v)) for k, v in own.items()}
        u = model(x, sigma, **without)
        return u + scale * (model(x, sigma, **own) - u)

    for name in ("shape", "device", "sigmas", "sigma_min", "sigma_max", "sigma_end"):
        setattr(denoise, name, getattr(model, name))
    return denoise


def ours(model, scale=SCALE, negative=NEGATIVE, schedule="trailing", **told):
    cond = model.encode(PROMPTS, negative, **told)
    model = model if scale is None else guided(model, scale)
    return kdiff.sample(model, "euler", steps=STEPS, n=2, schedule=schedule, cond=cond)


def theirs(pipe, model, latents=None, negative=NEGATIVE, **asked):
    asked = {"guidance_scale": SCALE, **asked}
    if negative is not None:
        asked["negative_prompt"] = [negative] * len(PROMPTS)
    width, height = model.size
    return pipe(
        PROMPTS,
        width=width,
        height=height,
        latents=start(model) if latents is None else latents,
        num_inference_steps=STEPS,
        output_type="latent",
        **asked,
    ).images


SIZES = pytest.mark.parametrize("size", [(16, 16), (32, 16), (8, 24)], ids=str)


@SIZES
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_stable_diffusion(prediction, size, tmp_path):
    made = text_pipelines.stable_diffusion(tmp_path, prediction_type=prediction)
    pipe, model = saved(made, tmp_path / "sd")
    model = model.resized(*size)
    close(ours(model), theirs(pipe, model))
    close(ours(model, negative=None), theirs(pipe, model, negative=None))
    close(ours(model, None), theirs(pipe, model, guidance_scale=1.0))


def test_pictures(tmp_path):
    """As the pipeline decodes them."""
    pipe, model = saved(text_pipelines.stable_diffusion(tmp_path), tmp_path / "sd")
    latents = ours(model)
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    close(model.decode(latents), images)


@SIZES
@pytest.mark.parametrize("zeros", [True, False])
def test_stable_diffusion_xl(zeros, size, tmp_path):
    made = text_pipelines.stable_diffusion_xl(tmp_path, force_zeros_for_empty_prompt=zeros)
    pipe, model = saved(made, tmp_path / "xl")
    model = model.resized(*size)
    close(ours(model), theirs(pipe, model))
    close(ours(model, negative=None), theirs(pipe, model, negative=None))
    close(ours(model, negative=""), theirs(pipe, model, negative=""))


EVEN = np.linspace(1, 1 / STEPS, STEPS)  # its own begins and ends so only for a shift of 1


@pytest.mark.parametrize("size", [(16, 16), (16, 8), (8, 12)], ids=str)
def test_stable_diffusion_3(size, tmp_path):
    pipe, model = saved(text_pipelines.stable_diffusion_3(tmp_path, shift=3.0), tmp_path / "sd3")
    model = model.resized(*size)
    close(ours(model), theirs(pipe, model, sigmas=EVEN))
    close(ours(model, negative=None), theirs(pipe, model, negative=None, sigmas=EVEN))


def test_stable_diffusion_3_without_t5(tmp_path):
    made = text_pipelines.stable_diffusion_3(tmp_path)
    made.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe, model = saved(made, tmp_path / "sd3")
    close(ours(model), theirs(pipe, model, sigmas=EVEN))


DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 8, "max_image_seq_len": 64}


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("size", [(16, 16), (16, 8)], ids=str)
def test_a_shift_by_the_size(size, kind, tmp_path):
    made = text_pipelines.stable_diffusion_3(tmp_path, **DYNAMIC, time_shift_type=kind)
    pipe, model = saved(made, tmp_path / "sd3")
    model = model.resized(*size)
    close(ours(model, schedule="linspace"), theirs(pipe, model))
    times = [sigma / (1 + sigma) for sigma in kdiff.schedule("linspace", STEPS, model)[:-1]]
    assert times == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), abs=2e-6)


@pytest.mark.parametrize("embeds", [True, False], ids=["dev", "schnell"])
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (8, 20)], ids=str)
def test_flux(size, embeds, tmp_path):
    flow = {"use_dynamic_shifting": True, "shift": 3.0} if embeds else {"shift": 1.0}
    made = text_pipelines.flux(tmp_path, guidance_embeds=embeds, **flow)
    pipe, model = saved(made, tmp_path / "flux")
    model = model.resized(*size)
    n = start(model)
    latents = pipe._pack_latents(n, *n.shape)

    def expected(**asked):
        packed = theirs(pipe, model, latents, **asked)
        width, height = model.size
        return pipe._unpack_latents(packed, height, width, pipe.vae_scale_factor)

    close(ours(model, None), expected(guidance_scale=3.5, negative=None))
    guided_so = {"true_cfg_scale": SCALE, "guidance_scale": 3.5}
    close(ours(model), expected(**guided_so))
    if embeds:
        close(ours(model, None, distilled_guidance=1.5), expected(guidance_scale=1.5))
