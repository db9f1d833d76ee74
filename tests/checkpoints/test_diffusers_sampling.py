"""Whole sampling runs from folders that diffusers writes, against diffusers' own pipelines and
schedulers."""

import math
import re

import diffusers
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import kdiff
from diffusers_networks import (
    EMBEDDING,
    LABELS,
    POOLED,
    Flow,
    Latents,
    close,
    make_condition,
    make_dit,
    make_sd3,
    make_unet,
    make_vae,
    normal,
    rewrite,
    save,
)
from kdiff.checkpoints.diffusers_scheduler import FLOW_END
from kdiff.cli import main
from kdiff.images import to_uint8
from kdiff.latent import LatentDenoiser
from places import ROOT

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()


def drive(model, start, sampler, cond=None, **planned):
    """kdiff's result from `start` at the noise level of the plan's first sigma."""
    plan = kdiff.plan(model, sampler, **planned)
    noise = kdiff.Noise(range(len(start)), start.shape[1:])
    *_, last = kdiff.drive(model, plan, start, noise, **(cond or {}))
    return last.x


def preserving(model, n, sampler, cond=None, **planned):
    """`drive`, from the state n of a variance-preserving process."""
    first = kdiff.plan(model, sampler, **planned).sigmas[0]
    return drive(model, n * math.hypot(1, first), sampler, cond, **planned)


SPACINGS = {
    "leading": ({}, {"schedule": "leading"}),
    "leading to timestep 0": (
        {"set_alpha_to_one": False, "steps_offset": 1},
        {"schedule": "leading", "final": "sigma_min"},
    ),
    "trailing": ({"timestep_spacing": "trailing"}, {"schedule": "trailing"}),
    "cosine": ({"beta_schedule": "squaredcos_cap_v2"}, {"schedule": "leading"}),
    "v": ({"prediction_type": "v_prediction"}, {"schedule": "leading"}),
    "x0": ({"prediction_type": "sample"}, {"schedule": "leading"}),
}


@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_pipeline(spacing, tmp_path):
    config, planned = SPACINGS[spacing]
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **config)
    network = make_unet()
    diffusers.DDIMPipeline(network, scheduler).save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    pipe = diffusers.DDIMPipeline.from_pretrained(tmp_path)
    pipe.scheduler.step = no_clamp(pipe.scheduler, results := [])
    pipe.set_progress_bar_config(disable=True)
    pipe(2, torch.Generator().manual_seed(1), num_inference_steps=10, output_type="np")
    x = preserving(model, normal(2, 3, 8, 8), "ddim", steps=10, options={"eta": 0}, **planned)
    if "final" in planned:  # diffusers ends at alpha x
        x = x * scheduler.alphas_cumprod[0].sqrt()
    close(x, results[-1])


def no_clamp(scheduler, results):
    """The scheduler's step, with its results kept, because pipelines clamp them to images."""
    step = scheduler.step

    def wrapped(*args, **kwargs):
        output = step(*args, **kwargs)
        results.append(output.prev_sample)
        return output

    return wrapped


@pytest.mark.parametrize(
    ("kind", "config", "sampler", "schedule"),
    [
        ("EulerDiscreteScheduler", {}, "euler", "linspace"),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, None, "trailing"),
        ("UniPCMultistepScheduler", {"final_sigmas_type": "zero"}, None, "trailing"),
    ],
)
def test_schedulers(kind, config, sampler, schedule, tmp_path):
    scheduler = getattr(diffusers, kind)(timestep_spacing=schedule, **config)
    network = make_unet()
    model = kdiff.load(save(tmp_path, network, scheduler))
    n = normal(2, 3, 8, 8)
    scheduler.set_timesteps(10)
    z = n * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        z = scheduler.step(network(scheduler.scale_model_input(z, t), t).sample, t, z).prev_sample
    if sampler:  # Euler's state is in the variance-exploding frame
        ours = drive(model, n * scheduler.init_noise_sigma, sampler, steps=10, schedule=schedule)
    else:
        ours = preserving(model, n, kind, steps=10, schedule=schedule)
    close(ours, z)


def test_zero_snr_sampling(tmp_path):
    """DDIM starts at sigma = infinity, and kdiff at 2^20. The difference is below five digits."""
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    network = make_unet()
    model = kdiff.load(save(tmp_path, network, scheduler))
    z = n = normal(2, 3, 8, 8)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps:
        z = scheduler.step(network(z, t).sample, t, z).prev_sample
    close(preserving(model, n, "ddim", steps=10, schedule="trailing", options={"eta": 0}), z)


def test_dit_pipeline(tmp_path):
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.DiTPipeline(make_dit(), make_vae(), scheduler).save_pretrained(tmp_path)
    rewrite(tmp_path / "model_index.json", id2label={"0": "Tench, Tinca tinca", "1": "cat"})
    model = kdiff.load(tmp_path)
    assert isinstance(model, LatentDenoiser)
    assert model.classes == ("tench", "cat", "2")
    pipe = diffusers.DiTPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        [2, 0],
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(1),
        num_inference_steps=5,
        output_type="pt",
    ).images
    n = normal(2, 4, 8, 8)
    ours = preserving(model, n, "euler", {"class_labels": LABELS}, steps=5, schedule="leading")
    close((model.decode(ours) / 2 + 0.5).clamp(0, 1), theirs)


def test_stable_diffusion_loop(tmp_path):
    """Classifier-free guidance on prompt embeddings, DPM-Solver++ 2M, and the VAE at the end."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="trailing",
    )
    unet, vae = make_condition(), make_vae()
    Latents(unet, vae, scheduler).save_pretrained(tmp_path)
    scheduler.set_timesteps(8)
    both = torch.cat([torch.zeros(1, 5, 12), EMBEDDING[:1]])
    z = n = normal(1, 4, 8, 8)
    for t in scheduler.timesteps:
        without, with_prompt = unet(torch.cat([z, z]), t, both).sample.chunk(2)
        z = scheduler.step(without + 3 * (with_prompt - without), t, z).prev_sample
    theirs = vae.decode(z / vae.config.scaling_factor).sample

    model = kdiff.load(tmp_path)

    def guided(x, sigma, **cond):
        without = model(x, sigma, encoder_hidden_states=torch.zeros(1, 5, 12))
        return without + 3 * (model(x, sigma, **cond) - without)

    guided.sigmas, guided.sigma_min, guided.sigma_max = model.sigmas, 0.03, 15
    cond = {"encoder_hidden_states": EMBEDDING[:1]}
    name = "DPMSolverMultistepScheduler"
    ours = preserving(guided, n, name, cond, steps=8, schedule="trailing")
    close(ours, z)
    close(model.decode(ours), theirs)
    assert "latents" in model.facts["decoding"]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sampling(shift, tmp_path):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    transformer, vae = make_sd3(), make_vae(shift_factor=0.06)
    Flow(transformer, vae, scheduler).save_pretrained(tmp_path)
    cond = {"encoder_hidden_states": EMBEDDING, "pooled_projections": POOLED}
    scheduler.set_timesteps(10)
    z = n = normal(2, 4, 8, 8)
    for t in scheduler.timesteps:
        velocity = transformer(z, timestep=t.expand(2), **cond).sample
        z = scheduler.step(velocity, t, z).prev_sample

    model = kdiff.load(tmp_path)
    if shift == 1:
        grid = kdiff.schedule("linspace", 10, model)
    else:  # diffusers shifts its smallest sigma twice
        times = [1 - FLOW_END, *scheduler.sigmas[1:].double().tolist()]
        grid = [t / (1 - t) for t in times]
    ours = drive(model, n * (1 + grid[0]), "euler", cond, sigmas=grid)
    close(ours, z)
    close(model.decode(ours), vae.decode(z / vae.config.scaling_factor + 0.06).sample)


def test_sample_takes_embeddings(tmp_path):
    Flow(
        make_sd3(), make_vae(), diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    ).save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    cond = {"encoder_hidden_states": EMBEDDING, "pooled_projections": POOLED}
    latents = kdiff.sample(model, "unipc", steps=4, n=2, schedule="linspace", cond=cond)
    one = kdiff.sample(
        model,
        "unipc",
        steps=4,
        seeds=[1],
        schedule="linspace",
        cond={k: v[1:] for k, v in cond.items()},
    )
    assert model.decode(latents).shape == (2, 3, 16, 16)
    assert torch.allclose(latents[1:], one, rtol=1e-4, atol=1e-4)


def test_guide(tmp_path, monkeypatch):
    """The code in docs/diffusers.md, one block after the other, on small networks."""
    monkeypatch.chdir(tmp_path)
    save("ddpm-cifar10-32", make_unet(), diffusers.DDPMScheduler())
    betas = diffusers.DDIMScheduler()
    diffusers.DiTPipeline(make_dit(1000), make_vae(), betas).save_pretrained("DiT-XL-2-256")
    Latents(make_condition(), make_vae(), betas).save_pretrained("stable-diffusion")
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    Flow(make_sd3(), make_vae(), flow).save_pretrained("stable-diffusion-3")
    torch.save([EMBEDDING[:1], EMBEDDING[1:]], "embeddings.pt")
    torch.save({"encoder_hidden_states": EMBEDDING, "pooled_projections": POOLED}, "sd3.pt")
    guide = (ROOT / "docs/diffusers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["latents"].shape == (2, 4, 8, 8)
    assert len(names["images"]) == 4


def test_the_command_line_shows_decoded_pictures(tmp_path):
    """For a latent model it writes images, which are as large as the autoencoder makes them."""
    folder = tmp_path / "dit"
    diffusers.DiTPipeline(make_dit(), make_vae(), diffusers.DDIMScheduler()).save_pretrained(folder)
    arguments = ["--model", folder, "--steps", 2, "--num", 2, "--out", tmp_path / "out"]
    result = CliRunner().invoke(main, ["sample", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    model = kdiff.load(folder)
    latents = kdiff.sample(model, "dpmpp_2m", steps=2, n=2, class_labels=[0, 1])
    expected = to_uint8(model.decode(latents))
    assert expected.shape[1] > latents.shape[2]
    for seed in range(2):
        with Image.open(tmp_path / "out" / f"{seed:06d}.png") as picture:
            np.testing.assert_allclose(np.asarray(picture), expected[seed], atol=1)
