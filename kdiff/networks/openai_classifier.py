"""The noisy-image classifier of Dhariwal & Nichol 2021 ("Diffusion Models Beat GANs", section 4.3):
the way down of their U-Net, with an attention pool at the end.

Tensors have the names and shapes of OpenAI's published checkpoints, so that their weights load into
this class.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.openai_unet import (
    Attention,
    Downsample,
    GroupNorm,
    ResBlock,
    Stage,
    embed_time,
    encoder,
    halve,
    time_embedding,
)


class AttentionPool(nn.Module):
    """`[N, C, H, W] -> [N, out_channels]`: attention of the mean over all positions, and of
    itself, with learned embeddings of positions (Radford et al. 2021, CLIP)."""

    def __init__(self, channels: int, heads: int, positions: int, out_channels: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(channels, positions + 1))
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        x = x.reshape(n, c, -1)
        x = torch.cat([x.mean(2, keepdim=True), x], dim=2) + self.positional_embedding
        qkv = self.qkv_proj(x).reshape(n, 3, self.heads, c // self.heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [N, heads, positions, channels of a head]
        h = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        return self.c_proj(h.reshape(n, c, 1))[:, :, 0]


class OpenAIClassifier(nn.Module):
    """`network(x, t) -> logits`: `[N, in_channels, size, size]` and `[N]` timesteps ->
    `[N, num_classes]`.

    Levels, blocks and attention are as in `OpenAIUNet`. `pooled_size`: the height and width at the
    last level, for the attention pool; 0: the mean over all positions instead, and a convolution.
    """

    def __init__(
        self,
        model_channels: int,
        channel_mult: Sequence[float],
        num_res_blocks: int,
        attention_levels: Sequence[int],
        *,
        num_classes: int,
        in_channels: int = 3,
        pooled_size: int = 0,
        num_head_channels: int = 64,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        conv_resample: bool = True,
    ):
        super().__init__()
        self.model_channels = model_channels
        self.time_embed = time_embedding(model_channels)
        block = partial(ResBlock, emb_channels=4 * model_channels, scale_shift=use_scale_shift_norm)

        def attention(channels: int) -> Attention:
            if channels % num_head_channels:
                raise ValueError(f"{channels} channels cannot be split into such heads")
            return Attention(channels, channels // num_head_channels, new_order=False)

        def stage(in_channels: int, out_channels: int, level: int) -> list[nn.Module]:
            with_attention = [attention(out_channels)] if level in attention_levels else []
            return [block(in_channels, out_channels), *with_attention]

        def down(c: int) -> nn.Module:
            return block(c, c, resample=halve) if resblock_updown else Downsample(c, conv_resample)

        widths = [int(mult * model_channels) for mult in channel_mult]
        self.input_blocks, _ = encoder(in_channels, widths, num_res_blocks, stage, down)
        c = widths[-1]
        self.middle_block = Stage(block(c, c), attention(c), block(c, c))
        pool: list[nn.Module]
        if pooled_size:
            heads = c // num_head_channels
            pool = [AttentionPool(c, heads, pooled_size**2, num_classes)]
        else:
            pool = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, num_classes, 1), nn.Flatten()]
        self.out = nn.Sequential(GroupNorm(c), nn.SiLU(), *pool)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.time_embed(embed_time(t, self.model_channels).to(x.dtype))
        for stage in self.input_blocks:
            x = stage(x, emb)
        return self.out(self.middle_block(x, emb))
