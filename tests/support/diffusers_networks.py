"""Small networks of diffusers with random weights, and their folders."""

import json

import diffusers
import torch
from diffusers import DiffusionPipeline

TOLERANCE = 1e-5  # relative to the largest number
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
    """The parts of StableDiffusion3Pipeline that are not about text."""

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


EMBEDDING = normal(2, 5, 12, seed=2)
POOLED = normal(2, 10, seed=3)
LABELS = torch.tensor([2, 0])
