"""Folders that diffusers writes, against diffusers' own networks, pipelines and schedulers."""

import inspect
import json
import math
import re
import shutil

import diffusers
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline
from PIL import Image

import kdiff
from kdiff.checkpoints import diffusers_folder
from kdiff.checkpoints.diffusers_scheduler import FLOW_END, precond_of
from kdiff.cli import main
from kdiff.images import to_uint8
from kdiff.latent import LatentDenoiser
from kdiff.networks.diffusers_models import ADAPTERS
from places import ROOT

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TOLERANCE = 1e-5  # relative to the largest number
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

# google/ddpm-cifar10-32: what its config.json says
CIFAR10 = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


class Latents(DiffusionPipeline):
    """The parts of StableDiffusionPipeline that are not about text."""

    def __init__(self, unet, vae, scheduler):
        super().__init__()
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler)


class Flow(DiffusionPipeline):
    """The same of StableDiffusion3Pipeline."""

    def __init__(self, transformer, vae, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)


def seeded(kind, **config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**config).eval().requires_grad_(False)


def make_unet(**config):
    return seeded(diffusers.UNet2DModel, **{**TINY_UNET, **config})


def make_vae(**config):
    return seeded(
        diffusers.AutoencoderKL,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=4,
        **config,
    )


def make_dit(classes=3):
    return seeded(
        diffusers.DiTTransformer2DModel,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=classes,
        out_channels=8,
    )


def make_condition(**config):
    return seeded(
        diffusers.UNet2DConditionModel,
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            **config,
        },
    )


def make_sd3():
    return seeded(
        diffusers.SD3Transformer2DModel,
        sample_size=8,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
    )


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(result, expected):
    assert (result - expected).abs().max() < TOLERANCE * expected.abs().max()


def save(folder, network, scheduler=None):
    """A DDPMPipeline, or the network alone."""
    saved = network if scheduler is None else diffusers.DDPMPipeline(network, scheduler)
    saved.save_pretrained(folder)
    return folder


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def drive(model, start, sampler, cond=None, **planned):
    """kdiff's result from `start` at the noise level of the plan's first sigma."""
    plan = kdiff.plan(model, sampler, **planned)
    noise = kdiff.Noise(range(len(start)), start.shape[1:])
    *_, last = kdiff.drive(model, plan, start, noise, **(cond or {}))
    return last.x


def preserving(model, n, sampler, cond=None, **planned):
    """The same from the state n of a variance-preserving process."""
    first = kdiff.plan(model, sampler, **planned).sigmas[0]
    return drive(model, n * math.hypot(1, first), sampler, cond, **planned)


# --- forward passes ------------------------------------------------------------------------------

EMBEDDING = normal(2, 5, 12, seed=2)
POOLED = normal(2, 10, seed=3)
LABELS = torch.tensor([2, 0])
KINDS = {
    "UNet2DModel": (make_unet, {}, {}),
    "learned variance": (lambda: make_unet(out_channels=6), {}, {}),
    "classes": (lambda: make_unet(num_class_embeds=3), {"class_labels": LABELS}, None),
    "DiTTransformer2DModel": (make_dit, {"class_labels": LABELS}, None),
    "null class": (
        make_dit,
        {"class_labels": torch.tensor([-1, 0])},
        {"class_labels": torch.tensor([3, 0])},
    ),
    "no class": (make_dit, {}, {"class_labels": torch.tensor([3, 3])}),
    "UNet2DConditionModel": (make_condition, {"encoder_hidden_states": EMBEDDING}, None),
    "XL": (
        lambda: make_condition(
            addition_embed_type="text_time",
            addition_time_embed_dim=2,
            projection_class_embeddings_input_dim=2 * 2 + 10,
        ),
        {
            "encoder_hidden_states": EMBEDDING,
            "text_embeds": POOLED,
            "time_ids": torch.tensor([[8.0, 8.0], [8.0, 4.0]]),
        },
        {
            "encoder_hidden_states": EMBEDDING,
            "added_cond_kwargs": {
                "text_embeds": POOLED,
                "time_ids": torch.tensor([[8.0, 8.0], [8.0, 4.0]]),
            },
        },
    ),
}


STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("kind", KINDS)
def test_forward(kind, tmp_path):
    make, ours, theirs = KINDS[kind]
    network = make()
    network.save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    latent = type(network).__name__ == "UNet2DConditionModel"
    a = diffusers.DDPMScheduler(**(STABLE_DIFFUSION if latent else {})).alphas_cumprod.double()
    for t in (0, 500, 999):
        alpha, sigma = a[t].sqrt().item(), (1 - a[t]).sqrt().item()
        z = normal(2, *model.shape)
        eps = network(z, timestep=torch.tensor([t, t]), **(ours if theirs is None else theirs))
        expected = (z - sigma * eps.sample[:, : z.shape[1]]) / alpha
        close(model(z / alpha, sigma / alpha, **ours), expected)
    assert "assumed" in model.facts["parameterisation"]


def test_forward_flow(tmp_path):
    network = make_sd3()
    network.save_pretrained(tmp_path)
    model = kdiff.load(tmp_path)
    cond = {"encoder_hidden_states": EMBEDDING, "pooled_projections": POOLED}
    for t in (0.001, 0.5, 0.999):
        z = normal(2, *model.shape)
        velocity = network(z, timestep=torch.full((2,), 1000 * t), **cond).sample
        close(model(z / (1 - t), t / (1 - t), **cond), z - t * velocity)


def test_what_conditioning_is_needed(tmp_path):
    for make, name in (
        (make_condition, "encoder_hidden_states"),
        (make_sd3, "encoder_hidden_states"),
        (lambda: make_unet(num_class_embeds=3), "class_labels"),
    ):
        model = kdiff.load(save(tmp_path / name / make().__class__.__name__, make()))
        with pytest.raises(ValueError, match=f"needs {name}"):
            kdiff.sample(model, steps=2)
    with pytest.raises(ValueError, match="no null class"):
        kdiff.sample(model, steps=2, class_labels=[-1])


def test_labels_for_a_network_without_classes(tmp_path):
    prompts = {"encoder_hidden_states": EMBEDDING[:1]}
    for make, cond in ((make_unet, {}), (make_condition, prompts)):
        model = kdiff.load(save(tmp_path / make.__name__, make()))
        with pytest.raises(ValueError, match="class"):
            kdiff.sample(model, steps=1, class_labels=[1], cond=cond)


# --- noise levels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01, 0.02, 0.03], "num_train_timesteps": 3},
        {"num_train_timesteps": 50, "beta_end": 0.4},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_betas(kind, config):
    scheduler = getattr(diffusers, kind)(**config)
    a = scheduler.alphas_cumprod.double()
    sigmas = torch.tensor(precond_of(scheduler.config).sigmas, dtype=torch.float64)
    assert torch.allclose(sigmas, ((1 - a) / a).sqrt(), rtol=1e-14, atol=0)


def test_zero_terminal_snr():
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    found = precond_of(scheduler.config)
    a = scheduler.alphas_cumprod.double()
    assert a[-1] == 0
    assert found.sigmas[-1] == found.sigma_end == pytest.approx(2**20)
    assert found.sigma_max == found.sigmas[-2] == pytest.approx((1 / a[-2] - 1).sqrt().item())
    assert kdiff.schedule("trailing", 10, found)[0] == pytest.approx(2**20)
    # eps is useless at sigma = infinity, so the range is the same as for all eps models.
    noise = precond_of({**scheduler.config, "prediction_type": "epsilon"})
    assert noise.sigmas == found.sigmas
    assert noise.sigma_max == max(s for s in found.sigmas if s <= 160)
    assert kdiff.schedule("trailing", 10, noise)[0] == pytest.approx(noise.sigma_max)


def test_a_zero_terminal_snr_that_comes_late():
    """The timestep before is above 2^20 already."""
    betas = [0.5, 0.9, 1 - 1e-7, 1 - 1e-7, 1.0]
    found = precond_of({"trained_betas": betas, "num_train_timesteps": 5})
    assert found.sigmas[-1] == pytest.approx(2 * found.sigmas[-2])


def test_flow_noise_levels():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    t = scheduler.sigmas.double().flip(0)
    found = precond_of(scheduler.config)
    expected = (t / (1 - t))[:-1]
    assert torch.allclose(torch.tensor(found.sigmas[:-1], dtype=torch.float64), expected, rtol=1e-3)
    assert found.sigmas[-1] == pytest.approx(3 / FLOW_END, rel=1e-5)
    solver = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    assert precond_of(solver.config).sigmas == found.sigmas


# --- full sampling -------------------------------------------------------------------------------

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
    """The scheduler's step, which keeps its result: pipelines clamp it to images."""
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
    """DDIM starts at sigma = infinity, kdiff at 2^20, which is near enough for five digits."""
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


# --- folders -------------------------------------------------------------------------------------


def test_published_cifar10_network():
    with torch.device("meta"):
        network = diffusers.UNet2DModel.from_config(CIFAR10)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert ADAPTERS["UNet2DModel"](network).classes == 0


def test_flat_folder(tmp_path):
    """google/ddpm-cifar10-32: everything at the top, the weights pickled, old attention names."""
    network = make_unet(attention_head_dim=None)
    network.save_pretrained(tmp_path, safe_serialization=False)
    rewrite(tmp_path / "config.json", attention_head_dim=None)
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path)
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **parts}))
    weights = tmp_path / "diffusion_pytorch_model.bin"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = torch.load(weights)
    for new, name in old.items():
        tensors = {k.replace(new, name): v for k, v in tensors.items()}
    torch.save(tensors, weights)
    model = kdiff.load(tmp_path)
    z = normal(2, 3, 8, 8)
    close(model.network(z, torch.tensor([7.0, 7.0])), network(z, 7).sample)
    assert model.facts["format"] == "diffusers DDPMPipeline"
    assert model.facts["parameterisation"] == "eps, from its prediction_type epsilon"


def test_early_dit_folder(tmp_path):
    network = make_dit()
    network.save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", _class_name="Transformer2DModel", attention_type="default")
    model = kdiff.load(tmp_path)
    z = normal(2, 4, 8, 8)
    close(
        model.network(z, torch.tensor([7.0, 7.0]), class_labels=LABELS),
        network(z, torch.tensor([7, 7]), LABELS).sample,
    )


def test_what_shares_a_name_with_early_dit(tmp_path):
    diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=12,
        use_additional_conditions=False,
    ).save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", _class_name="Transformer2DModel")
    with pytest.raises(ValueError, match="that is not DiT's"):
        kdiff.load(tmp_path)


def test_the_unet_of_a_pipeline_has_its_scheduler(tmp_path):
    save(tmp_path, make_unet(), diffusers.DDIMScheduler(prediction_type="v_prediction"))
    model = kdiff.load(tmp_path / "unet")
    assert model.facts["parameterisation"] == "v, from its prediction_type v_prediction"


def test_variants_shards_and_dtypes(tmp_path):
    network = make_unet()
    network.save_pretrained(tmp_path / "fp16", variant="fp16")
    with pytest.raises(ValueError, match=r"fp16\.safetensors: give variant"):
        kdiff.load(tmp_path / "fp16")
    network.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for safe in (True, False):
        folder = tmp_path / f"half, {safe}"
        make_unet().half().save_pretrained(folder, safe_serialization=safe)
        assert kdiff.load(folder).dtype == torch.float32
        assert kdiff.load(folder, dtype=None).dtype == torch.float16
    mixed = make_unet().half()
    mixed.time_embedding.float()
    mixed.save_pretrained(tmp_path / "mixed")
    assert kdiff.load(tmp_path / "mixed", dtype=None).dtype == torch.float32
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    z, t = normal(2, 3, 8, 8), torch.tensor([7.0, 7.0])
    for model in (kdiff.load(tmp_path / "fp16", variant="fp16"), kdiff.load(tmp_path / "shards")):
        close(model.network(z, t), network(z, 7).sample)
    assert kdiff.load(tmp_path / "shards", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_overrides(tmp_path):
    save(tmp_path, make_unet())
    model = kdiff.load(tmp_path, prediction="v", sigma_max=80)
    assert (model.precond.name, model.sigma_max) == ("v", 80)


def test_loading_leaves_the_global_generator_alone(tmp_path):
    save(tmp_path, make_unet())
    before = torch.get_rng_state()
    kdiff.load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_latents_move_with_their_decoder(tmp_path):
    diffusers.DiTPipeline(make_dit(), make_vae(), diffusers.DDIMScheduler()).save_pretrained(
        tmp_path
    )
    model = kdiff.load(tmp_path).to(dtype=torch.float64)
    assert model.decode(normal(3, 4, 8, 8).double(), batch=2).dtype == torch.float64


def test_detect(tmp_path):
    assert diffusers_folder.detect(tmp_path / "none") == "not a folder"
    assert diffusers_folder.detect(tmp_path) == "no model_index.json and no config.json"
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    assert diffusers_folder.detect(tmp_path) == "config.json is of a VQModel"


BROKEN = {
    "its network is a VQModel": lambda p: rewrite(p / "unet/config.json", _class_name="VQModel"),
    "is not JSON": lambda p: (p / "unet/config.json").write_text("{"),
    "is not a JSON object": lambda p: (p / "unet/config.json").write_text("[1]"),
    "no config.json": lambda p: (p / "unet/config.json").unlink(),
    "too large": lambda p: (p / "unet/config.json").write_text(" " * 2**21),
    "names no network": lambda p: rewrite(p / "unet/config.json", _class_name=["a"]),
    "quantized": lambda p: rewrite(p / "unet/config.json", quantization_config={"a": 1}),
    "describes a network": lambda p: rewrite(
        p / "unet/config.json", block_out_channels=[40000, 40000], norm_num_groups=1
    ),
    "layers_per_block is": lambda p: rewrite(p / "unet/config.json", layers_per_block=10**9),
    "do not fit": lambda p: rewrite(p / "unet/config.json", block_out_channels=[8, 24]),
    "not a whole safetensors": lambda p: truncate(p / "unet/diffusion_pytorch_model.safetensors"),
    "no diffusion_pytorch_model": lambda p: (
        p / "unet/diffusion_pytorch_model.safetensors"
    ).unlink(),
    "time_embedding_type": lambda p: make_unet(time_embedding_type="fourier").save_pretrained(
        p / "unet"
    ),
    "no sample_size": lambda p: rewrite(p / "unet/config.json", sample_size=None),
    "prediction_type 'score'": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", prediction_type="score"
    ),
    "num_train_timesteps": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", num_train_timesteps=10**12
    ),
    "betas of DDPMScheduler": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", beta_schedule="wavy"
    ),
    "timestep_type 'continuous' is not": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", timestep_type="continuous"
    ),
    "snr_shift_scale 3.0 is not": lambda p: rewrite(
        p / "scheduler/scheduler_config.json", snr_shift_scale=3.0
    ),
    "EDMEulerScheduler is not supported": lambda p: (
        p / "scheduler/scheduler_config.json"
    ).write_text('{"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}'),
    "dynamic_shifting": lambda p: (p / "scheduler/scheduler_config.json").write_text(
        '{"shift": 3.0, "use_dynamic_shifting": true}'
    ),
    "a LDMPipeline is not supported": lambda p: rewrite(
        p / "model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"]
    ),
}


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save(tmp_path_factory.mktemp("whole"), make_unet(), diffusers.DDPMScheduler())


@pytest.mark.parametrize("message", BROKEN)
def test_broken_folders(message, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    BROKEN[message](tmp_path / "copy")
    with pytest.raises(ValueError, match=message) as caught:
        kdiff.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_pickles_do_not_run(whole, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy/unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Hostile()}, tmp_path / "copy/unet/diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="tensors alone"):
        kdiff.load(tmp_path / "copy")
    assert not (tmp_path / "ran").exists()


def test_without_diffusers(whole, monkeypatch):
    monkeypatch.setattr(diffusers_folder, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs diffusers: pip install diffusers"):
        kdiff.load(whole)


def test_unsupported_channels(tmp_path):
    with pytest.raises(ValueError, match="9 channels in and 4 out"):
        kdiff.load(save(tmp_path, make_condition(in_channels=9)))


def test_options_of_the_format():
    parameters = inspect.signature(diffusers_folder.load).parameters
    told = ["shape", "precond", "prediction", "shift"]
    assert list(parameters) == ["path", *told, "variant", "dtype"]


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
    """Of a latent model, images and not latents: as large as the autoencoder makes them."""
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
