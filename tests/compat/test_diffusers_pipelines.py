"""KDiffScheduler in diffusers' own pipelines, on tiny random networks. With the sampler and grid of
the scheduler that it replaces, the result is the same."""

import diffusers
import numpy as np
import pytest
import torch

import adaptive_samplers
import kdiff
from kdiff.compat.diffusers import KDiffScheduler

pytest.importorskip("transformers", reason="diffusers has most pipelines only beside transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
diffusers.utils.logging.set_verbosity_error()

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
EULER = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
DYNAMIC = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
LTX = diffusers.FlowMatchEulerDiscreteScheduler(
    use_dynamic_shifting=True, shift_terminal=0.1, max_image_seq_len=4096, max_shift=2.05
)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quiet(make):
    """Parts that are the same every time, without gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def run(pipe, scheduler, **asked):
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        result = pipe(generator=torch.Generator().manual_seed(5), **asked)[0]
    return torch.as_tensor(np.asarray(result))


def same(pipe, scheduler, tolerance=1e-4, **asked):
    """Both make the same, and kdiff calls the network as often."""
    theirs = run(pipe, scheduler, **asked)
    schedule = "trailing" if "beta_schedule" in scheduler.config else None
    ours = KDiffScheduler.from_config(scheduler.config, sampler="euler", schedule=schedule)
    result = run(pipe, ours, **asked)
    assert result.shape == theirs.shape
    assert (result - theirs).abs().max() < tolerance * theirs.abs().max()
    for sampler in ("unipc", "dpmpp_2s_ancestral"):
        ours = KDiffScheduler.from_config(scheduler.config, sampler=sampler)
        assert run(pipe, ours, **asked).isfinite().all()
        assert ours.step_index == len(ours.timesteps) == len(ours.sigmas) - 1
    with adaptive_samplers.registered():  # which ends before the last of its timesteps
        ours = KDiffScheduler.from_config(
            scheduler.config, sampler="adaptive", options={"limit": 100}
        )
        assert run(pipe, ours, **asked).isfinite().all()
        assert 2 <= ours.step_index < len(ours.timesteps) == 100


# --- Stable Diffusion ----------------------------------------------------------------------------


def stable_diffusion(kind):
    unet = quiet(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=4,
        )
    )
    vae = quiet(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(4, 4), norm_num_groups=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )
    )  # fmt: skip
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    return kind(vae=vae, unet=unet, scheduler=EULER, **parts, requires_safety_checker=False)


PROMPTS = {
    "prompt_embeds": normal(2, 5, 12),
    "negative_prompt_embeds": normal(2, 5, 12, seed=2),
    "guidance_scale": 2.0,
    "output_type": "np",
}
PICTURES = normal(2, 3, 16, 16, seed=3).clamp(-1, 1)
HOLES = torch.zeros(2, 1, 16, 16)
HOLES[..., 4:12] = 1


def test_text_to_image():
    pipe = stable_diffusion(diffusers.StableDiffusionPipeline)
    same(pipe, EULER, num_inference_steps=5, height=16, width=16, **PROMPTS)


def test_pipelines_that_are_given_a_grid():
    pipe = stable_diffusion(diffusers.StableDiffusionPipeline)
    small = {"height": 16, "width": 16, **PROMPTS}
    same(pipe, EULER, timesteps=[950, 700, 400, 100], **small)
    same(pipe, EULER, sigmas=[14.0, 5.0, 1.0, 0.2, 0.0], **small, tolerance=3e-3)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_image_to_image(strength):
    pipe = stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline)
    same(pipe, EULER, image=PICTURES, strength=strength, num_inference_steps=5, **PROMPTS)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_of_two_images(strength):
    pipe = stable_diffusion(diffusers.StableDiffusionInpaintPipeline)
    asked = {"image": PICTURES, "mask_image": HOLES, "height": 16, "width": 16}
    same(pipe, EULER, **asked, strength=strength, num_inference_steps=5, **PROMPTS)


# --- flows ---------------------------------------------------------------------------------------


def sd3(kind):
    transformer = quiet(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=1, in_channels=16, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=12,
            pooled_projection_dim=20, out_channels=16,
        )
    )  # fmt: skip
    vae = quiet(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(4,), norm_num_groups=2, latent_channels=16, shift_factor=0.06,
            scaling_factor=1.5,
        )
    )  # fmt: skip
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    parts = dict.fromkeys((*encoders, "tokenizer", "tokenizer_2", "tokenizer_3"))
    return kind(transformer=transformer, vae=vae, scheduler=FLOW, **parts)


SD3_PROMPTS = {
    "prompt_embeds": normal(2, 5, 12),
    "pooled_prompt_embeds": normal(2, 20),
    "guidance_scale": 0.0,
    "output_type": "np",
    "num_inference_steps": 5,
}
SMALL = normal(2, 3, 8, 8, seed=3).clamp(-1, 1)


@pytest.mark.parametrize("scheduler", [FLOW, DYNAMIC], ids=["shift", "dynamic shift"])
def test_sd3(scheduler):
    pipe = sd3(diffusers.StableDiffusion3Pipeline)
    pipe.vae_scale_factor = 1
    same(pipe, scheduler, height=8, width=8, **SD3_PROMPTS)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_sd3_image_to_image(strength):
    pipe = sd3(diffusers.StableDiffusion3Img2ImgPipeline)
    same(pipe, FLOW, image=SMALL, strength=strength, height=8, width=8, **SD3_PROMPTS)


def test_sd3_inpainting():
    pipe = sd3(diffusers.StableDiffusion3InpaintPipeline)
    holes = HOLES[..., 4:12, 4:12].clone()
    holes[..., :4] = 0
    asked = {"image": SMALL, "mask_image": holes, "strength": 0.8, "height": 8, "width": 8}
    same(pipe, FLOW, **asked, **SD3_PROMPTS)


def test_flux():
    """It computes sigmas itself, and mu from the size."""
    transformer = quiet(
        lambda: diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=12, pooled_projection_dim=20,
            axes_dims_rope=[4, 4, 8],
        )
    )  # fmt: skip
    vae = quiet(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(4,), norm_num_groups=2, latent_channels=1, shift_factor=0.0,
            use_quant_conv=False, use_post_quant_conv=False,
        )
    )  # fmt: skip
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = diffusers.FluxPipeline(scheduler=DYNAMIC, transformer=transformer, vae=vae, **parts)
    asked = {key: SD3_PROMPTS[key] for key in ("prompt_embeds", "pooled_prompt_embeds")}
    for scheduler in (DYNAMIC, FLOW):
        same(pipe, scheduler, **asked, height=8, width=8, num_inference_steps=5, output_type="np")


def test_wan():
    """It reads `scheduler.sigmas` in every step."""
    transformer = quiet(
        lambda: diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
            out_channels=4, text_dim=12, freq_dim=16, ffn_dim=16, num_layers=1,
            cross_attn_norm=True, rope_max_seq_len=32,
        )
    )  # fmt: skip
    vae = quiet(
        lambda: diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True],
        )
    )  # fmt: skip
    pipe = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, vae=vae, scheduler=FLOW, transformer=transformer
    )
    solver = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    asked = {
        "prompt_embeds": normal(1, 5, 12),
        "negative_prompt_embeds": normal(1, 5, 12, seed=2),
        "height": 16,
        "width": 16,
        "num_frames": 1,
        "num_inference_steps": 4,
        "output_type": "latent",
    }
    same(pipe, FLOW, **asked)
    ours = KDiffScheduler.from_config(solver.config, sampler="unipc")
    result = run(pipe, ours, **asked)
    assert len(ours.timesteps) == kdiff.plan(sampler="unipc", sigmas=ours.plan.sigmas).nfe == 4
    # diffusers rounds the timesteps that it tells the network
    assert (result - run(pipe, solver, **asked)).abs().max() < 0.05 * result.abs().max()


def test_ltx():
    """Its scheduler stretches the sigmas to a last one of 0.1."""
    transformer = quiet(
        lambda: diffusers.LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
            cross_attention_dim=16, num_layers=1, caption_channels=12,
        )
    )  # fmt: skip
    vae = quiet(
        lambda: diffusers.AutoencoderKLLTXVideo(
            latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=(1, 1, 1, 1, 1),
            decoder_block_out_channels=(4, 4, 4, 4), decoder_layers_per_block=(1, 1, 1, 1, 1),
        )
    )  # fmt: skip
    pipe = diffusers.LTXPipeline(
        scheduler=LTX, vae=vae, text_encoder=None, tokenizer=None, transformer=transformer
    )
    asked = {"prompt_embeds": normal(1, 5, 12), "prompt_attention_mask": torch.ones(1, 5)}
    size = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 5}
    same(pipe, LTX, **asked, **size, guidance_scale=1.0, output_type="latent")
