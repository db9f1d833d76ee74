"""A small network of each kind that kdiff has, all with attention in the middle."""

import torch

import kdiff
from kdiff.networks import NETWORKS

KINDS = {
    "song_unet": {
        "img_resolution": 8,
        "model_channels": 16,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [8],
    },
    "dhariwal_unet": {
        "img_resolution": 8,
        "model_channels": 64,
        "channel_mult": [1, 1],
        "num_blocks": 1,
        "attn_resolutions": [8],
    },
    "edm2_unet": {
        "img_resolution": 8,
        "img_channels": 3,
        "model_channels": 16,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [8],
        "channels_per_head": 8,
    },
    "openai_unet": {
        "model_channels": 32,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attention_levels": [1],
        "num_heads": 2,
    },
    "k_diffusion_v1": {
        "input_channels": 3,
        "mapping_out": 8,
        "depths": [2, 2],
        "channels": [32, 64],
        "self_attn_depths": [False, True],
    },
    "k_diffusion_v2": {
        "input_channels": 3,
        "patch_size": [1, 1],
        "depths": [1, 2],
        "widths": [16, 32],
        "self_attns": [
            {"type": "neighborhood", "d_head": 8, "kernel_size": 3},
            {"type": "global", "d_head": 8},
        ],
        "d_ffs": [16, 32],
        "mapping_width": 16,
        "mapping_d_ff": 16,
    },
    "lucidrains_unet": {
        "dim": 8,
        "init_dim": 8,
        "widths": [8, 16],
        "full_attention": [False, True],
        "heads": [2, 2],
        "head_channels": [4, 4],
    },
}


def attending(kind):
    """With weights of the size at which all layers have an effect."""
    network = NETWORKS[kind](**KINDS[kind]).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if weight.ndim > 1:
            fan_in = weight[0].numel()
            weight.copy_(torch.randn(weight.shape, generator=generator) * 1.5 * fan_in**-0.5)
        elif weight.ndim == 0:  # EDM2's gain, of the whole network
            weight.fill_(1)
    return network


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def model_of(network):
    return kdiff.Denoiser(network, "edm", shape=(3, 8, 8))
