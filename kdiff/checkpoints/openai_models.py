"""OpenAI's published models, by the flags in the READMEs of guided-diffusion and
improved-diffusion. Files of the same shapes share a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """First the settings that the shapes of the tensors in `files` determine, then the others."""

    files: str
    model_channels: int
    channel_mult: tuple[float, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    in_channels: int = 3
    out_channels: int = 6
    num_classes: int = 0
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    conv_resample: bool = True

    num_heads: int = 1
    num_head_channels: int = 0
    use_new_attention_order: bool = False
    noise_schedule: str = "linear"
    diffusion_steps: int = 1000
    rescale_timesteps: bool = False

    def fits(self, architecture: Mapping[str, Any]) -> bool:
        """Whether a file with this `architecture` has the shapes of this model."""
        return all(getattr(self, key) == value for key, value in architecture.items())


PUBLISHED = (
    Published(
        files="64x64_diffusion",
        model_channels=192,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention_levels=(1, 2, 3),
        num_classes=1000,
        num_head_channels=64,
        use_new_attention_order=True,
        noise_schedule="cosine",
    ),
    Published(
        files="128x128_diffusion",
        model_channels=256,
        channel_mult=(1, 1, 2, 3, 4),
        num_res_blocks=2,
        attention_levels=(2, 3, 4),
        num_classes=1000,
        num_heads=4,
    ),
    Published(
        files="256x256_diffusion",
        model_channels=256,
        channel_mult=(1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_levels=(3, 4, 5),
        num_classes=1000,
        num_head_channels=64,
    ),
    Published(
        files="256x256_diffusion_uncond, lsun_bedroom, lsun_cat, lsun_horse, lsun_horse_nodropout",
        model_channels=256,
        channel_mult=(1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_levels=(3, 4, 5),
        num_head_channels=64,
    ),
    Published(
        files="512x512_diffusion",
        model_channels=256,
        channel_mult=(0.5, 1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_levels=(4, 5, 6),
        num_classes=1000,
        num_head_channels=64,
    ),
    Published(
        files="imagenet64_uncond_100M_1500K, imagenet64_uncond_vlb_100M_1500K",
        model_channels=128,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention_levels=(2, 3),
        resblock_updown=False,
        num_heads=4,
        noise_schedule="cosine",
        diffusion_steps=4000,
        rescale_timesteps=True,
    ),
    Published(
        files="cifar10_uncond_50M_500K, cifar10_uncond_vlb_50M_500K",
        model_channels=128,
        channel_mult=(1, 2, 2, 2),
        num_res_blocks=3,
        attention_levels=(1, 2),
        resblock_updown=False,
        num_heads=4,
        noise_schedule="cosine",
        diffusion_steps=4000,
        rescale_timesteps=True,
    ),
    Published(
        files="imagenet64_cond_270M_250K",
        model_channels=192,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention_levels=(2, 3),
        num_classes=1000,
        resblock_updown=False,
        num_heads=4,
        noise_schedule="cosine",
        diffusion_steps=4000,
    ),
    Published(
        files="lsun_uncond_100M_1200K_bs128, lsun_uncond_100M_2400K_bs64",
        model_channels=128,
        channel_mult=(1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_levels=(4,),
        use_scale_shift_norm=False,
        resblock_updown=False,
    ),
)

# The scripts' own multipliers for each image size.
IMAGE_SIZES: dict[tuple[float, ...], int] = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}
