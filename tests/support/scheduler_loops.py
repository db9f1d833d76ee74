"""A small U-Net of diffusers, and the loop of a pipeline around a scheduler."""

import diffusers
import torch

import kdiff
from kdiff.compat.diffusers import KDiffScheduler

TOLERANCE = 1e-5
SEEDS = [3, 4]
SHAPE = (3, 8, 8)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "eps": diffusers.DDIMScheduler(**BETAS).config,
    "v": diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **BETAS).config,
    "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config,
}


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


def make_model(config, network=unet, **settings):
    """kdiff's denoiser of the same network."""
    precond = KDiffScheduler.from_config(config).precond
    return kdiff.Denoiser(network, precond, shape=SHAPE, **settings)


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
