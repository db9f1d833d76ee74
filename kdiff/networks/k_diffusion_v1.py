"""k-diffusion's `image_v1` U-Net: residual blocks with adaptive group norm, whose scale and shift
are linear in an embedding of the noise level, and multi-head self-attention at chosen levels.

Tensors have the names and shapes of k-diffusion's checkpoints, so that their weights load into this
class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.registry import network

GROUP_SIZE, HEAD_SIZE = 32, 64
FIR = (0.125, 0.375, 0.375, 0.125)  # bilinear resampling by 2


class FourierFeatures(nn.Module):
    """`[N, C] -> [N, channels]`: cos and sin of 2 pi W x, W random."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.randn(channels // 2, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x @ self.weight.to(x.dtype).T
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class AdaptiveGroupNorm(nn.Module):
    """group_norm(x) (1 + w) + b, with w and b linear in the embedding `cond`."""

    def __init__(self, channels: int, cond_channels: int):
        super().__init__()
        self.groups = max(1, channels // GROUP_SIZE)
        self.mapper = nn.Linear(cond_channels, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        weight, bias = self.mapper(cond)[:, :, None, None].chunk(2, dim=1)
        return F.group_norm(x, self.groups) * (1 + weight) + bias


class ResidualBlock(nn.Module):
    """skip(x) + conv(gelu(norm(conv(gelu(norm(x, cond))), cond)))."""

    def __init__(self, c_in: int, c_mid: int, c_out: int, cond_channels: int):
        super().__init__()
        self.main = nn.ModuleDict(  # named by their places among activations and dropout
            {
                "0": AdaptiveGroupNorm(c_in, cond_channels),
                "2": nn.Conv2d(c_in, c_mid, 3, padding=1),
                "4": AdaptiveGroupNorm(c_mid, cond_channels),
                "6": nn.Conv2d(c_mid, c_out, 3, padding=1),
            }
        )
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        norm0, conv0, norm1, conv1 = self.main.values()
        h = conv0(F.gelu(norm0(x, cond)))
        return self.skip(x) + conv1(F.gelu(norm1(h, cond)))


class SelfAttention(nn.Module):
    def __init__(self, channels: int, cond_channels: int):
        super().__init__()
        self.heads = max(1, channels // HEAD_SIZE)
        self.norm_in = AdaptiveGroupNorm(channels, cond_channels)
        self.qkv_proj = nn.Conv2d(channels, 3 * channels, 1)
        self.out_proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        qkv = self.qkv_proj(self.norm_in(x, cond))
        qkv = qkv.reshape(len(x), 3, self.heads, -1, x.shape[2] * x.shape[3])
        q, k, v = qkv.transpose(3, 4).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out_proj(h.transpose(2, 3).reshape(x.shape))


class Resample(nn.Module):
    """Bilinear resampling by 2, "up" or "down", of an image continued by reflection."""

    def __init__(self, direction: str):
        super().__init__()
        self.up = direction == "up"
        fir = torch.tensor(FIR) * (2 if self.up else 1)
        self.kernel: Tensor
        self.register_buffer("kernel", torch.outer(fir, fir))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        x = F.pad(x, (1, 1, 1, 1), "reflect")
        if self.up:
            return F.conv_transpose2d(x, kernel, stride=2, padding=3, groups=len(kernel))
        return F.conv2d(x, kernel, stride=2, groups=len(kernel))


class Stage(nn.ModuleList):
    """The layers of one level of the U-Net, on its way down or up."""

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        for layer in self:
            conditioned = isinstance(layer, ResidualBlock | SelfAttention)
            x = layer(x, cond) if conditioned else layer(x)
        return x


class UNet(nn.Module):
    """Down through `d_blocks` but the first `skip_stages`, and up again with skip connections."""

    def __init__(self, down: Sequence[Stage], up: Sequence[Stage], skip_stages: int):
        super().__init__()
        self.d_blocks, self.u_blocks = nn.ModuleList(down), nn.ModuleList(up)
        self.skip_stages = skip_stages

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for stage in self.d_blocks[self.skip_stages :]:
            x = stage(x, cond)
            skips.append(x)
        deepest, *above = self.u_blocks[: len(skips)]
        x = deepest(skips.pop(), cond)
        for stage in above:
            x = stage(torch.cat([x, skips.pop()], dim=1), cond)
        return x


def _layers(
    depth: int, c_in: int, c_mid: int, c_out: int, cond_channels: int, attention: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(depth):
        start, end = (c_in if i == 0 else c_mid), (c_out if i == depth - 1 else c_mid)
        layers.append(ResidualBlock(start, c_mid, end, cond_channels))
        if attention:
            layers.append(SelfAttention(end, cond_channels))
    return layers


@network("k_diffusion_v1")
class KDiffusionV1(nn.Module):
    """`network(x, c_noise) -> F(x)`, images `[N, C, H, W]`, `c_noise` `[N]` = ln(sigma) / 4.

    Its arguments have the names of k-diffusion's configurations; `mapping_cond_dim` counts
    the 9 numbers that tell an augmented training image. Optional, where the model has them:
    `mapping_cond` `[N, D]` without those 9, which are then 0, and `unet_cond` `[N, D, H, W]`.
    With `has_variance` the last channel, a variance, is dropped. There are no classes.
    """

    def __init__(
        self,
        input_channels: int,
        mapping_out: int,
        depths: Sequence[int],
        channels: Sequence[int],
        self_attn_depths: Sequence[bool],
        *,
        mapping_cond_dim: int = 0,
        unet_cond_dim: int = 0,
        patch_size: int = 1,
        skip_stages: int = 0,
        has_variance: bool = False,
    ):
        super().__init__()
        self.patch_size, self.has_variance = patch_size, has_variance
        self.timestep_embed = FourierFeatures(1, mapping_out)
        if mapping_cond_dim:
            self.mapping_cond = nn.Linear(mapping_cond_dim, mapping_out, bias=False)
        self.mapping = nn.Sequential(
            nn.Linear(mapping_out, mapping_out),
            nn.GELU(),
            nn.Linear(mapping_out, mapping_out),
            nn.GELU(),
        )
        outer = channels[max(0, skip_stages - 1)]
        pixels = patch_size**2
        self.proj_in = nn.Conv2d((input_channels + unet_cond_dim) * pixels, outer, 1)
        self.proj_out = nn.Conv2d(outer, input_channels * pixels + has_variance, 1)

        down, up = [], []
        for i, (depth, c) in enumerate(zip(depths, channels, strict=True)):
            above, resamples = channels[max(0, i - 1)], i > skip_stages
            rest = (mapping_out, self_attn_depths[i])
            first = Resample("down") if resamples else nn.Identity()
            down.append(Stage([first, *_layers(depth, above, c, c, *rest)]))
            joined = c if i == len(channels) - 1 else 2 * c  # with the skip connection
            last = Resample("up") if resamples else nn.Identity()
            up.append(Stage([*_layers(depth, joined, c, above, *rest), last]))
        self.u_net = UNet(down, up[::-1], skip_stages)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: None = None,
        mapping_cond: Tensor | None = None,
        unet_cond: Tensor | None = None,
    ) -> Tensor:
        cond = self._embed(c_noise, mapping_cond, x.dtype)
        if unet_cond is not None:
            x = torch.cat([x, unet_cond], dim=1)
        x = self.proj_in(F.pixel_unshuffle(x, self.patch_size))
        x = self.proj_out(self.u_net(x, cond))
        return F.pixel_shuffle(x[:, :-1] if self.has_variance else x, self.patch_size)

    def _embed(self, c_noise: Tensor, mapping_cond: Tensor | None, dtype: torch.dtype) -> Tensor:
        emb = self.timestep_embed(c_noise[:, None]).to(dtype)
        if mapping_cond is not None:
            missing = self.mapping_cond.in_features - mapping_cond.shape[1]
            emb = emb + self.mapping_cond(F.pad(mapping_cond.to(dtype), (missing, 0)))
        return self.mapping(emb)
