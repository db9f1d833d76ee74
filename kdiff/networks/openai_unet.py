"""The U-Net of Nichol & Dhariwal 2021 ("Improved DDPM") and Dhariwal & Nichol 2021 ("Diffusion
Models Beat GANs", ADM).

Tensors have the names and shapes of OpenAI's published checkpoints, so that their weights load into
this class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.registry import network


class GroupNorm(nn.GroupNorm):
    """Group norm in 32 groups, by PyTorch's kernel for contiguous images. On CPUs its kernel for
    channels_last computes the variance as E[x^2] - E[x]^2, which loses digits where an embedding
    was added."""

    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous())


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


double = partial(F.interpolate, scale_factor=2, mode="nearest")
halve = partial(F.avg_pool2d, kernel_size=2)


class ResBlock(nn.Module):
    """`skip(x) + conv(silu(norm(conv(silu(norm(x))), emb)))`, on an image that `resample` doubles
    or halves first. The embedding is added before the second norm, or (`scale_shift`) scales and
    shifts the output of that norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        emb_channels: int,
        scale_shift: bool,
        resample: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        silu = nn.SiLU()
        self.in_layers = nn.Sequential(
            GroupNorm(in_channels), silu, conv3x3(in_channels, out_channels)
        )
        self.emb_layers = nn.Sequential(
            silu, nn.Linear(emb_channels, out_channels * (1 + scale_shift))
        )
        self.out_layers = nn.Sequential(  # the identity stands where training drops out
            GroupNorm(out_channels), silu, nn.Identity(), conv3x3(out_channels, out_channels)
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, silu, conv = self.in_layers
        h = silu(norm(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = conv(h)
        emb = self.emb_layers(emb)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    """Self-attention over all positions, added to `x`. The channels of `qkv` are ordered by head
    first, then q, k, v; in the `new_order`, q, k, v come first."""

    def __init__(self, channels: int, heads: int, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        qkv = self.qkv(self.norm(x).reshape(n, c, -1))
        if self.new_order:
            qkv = qkv.reshape(n, 3, self.heads, c // self.heads, -1)
        else:
            qkv = qkv.reshape(n, self.heads, 3, c // self.heads, -1).transpose(1, 2)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [N, heads, positions, channels of a head]
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.proj_out(h.reshape(n, c, -1)).reshape(x.shape)


class Downsample(nn.Module):
    """Half the size: a convolution of stride 2, or the mean of 2 x 2 positions."""

    def __init__(self, channels: int, learned: bool):
        super().__init__()
        self.op = conv3x3(channels, channels, stride=2) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size, by repetition, then a convolution if it is `learned`."""

    def __init__(self, channels: int, learned: bool):
        super().__init__()
        self.conv = conv3x3(channels, channels) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double(x))


class Stage(nn.Sequential):
    """Layers in a row, of which the residual blocks also get the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def encoder(
    in_channels: int,
    widths: Sequence[int],
    num_res_blocks: int,
    stage: Callable[[int, int, int], list[nn.Module]],
    down: Callable[[int], nn.Module],
) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the channels of each of its blocks: a convolution, then at each level
    `num_res_blocks` blocks of `stage(in_channels, out_channels, level)`, with `down(channels)`
    between two levels."""
    c = widths[0]
    blocks = nn.ModuleList([Stage(conv3x3(in_channels, c))])
    channels = [c]
    for level, width in enumerate(widths):
        if level > 0:
            blocks.append(Stage(down(c)))
            channels.append(c)
        for _ in range(num_res_blocks):
            blocks.append(Stage(*stage(c, width, level)))
            channels.append(c := width)
    return blocks, channels


def time_embedding(channels: int) -> nn.Sequential:
    """`[N, channels] -> [N, 4 channels]`, behind `embed_time`."""
    return nn.Sequential(
        nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
    )


def embed_time(t: Tensor, channels: int) -> Tensor:
    """`[N] -> [N, channels]`: cos, then sin, of `t * 10000^(-i / frequencies)`; a zero at the end
    if the number of channels is odd."""
    frequencies = channels // 2
    i = torch.arange(frequencies, dtype=torch.float32, device=t.device)
    angle = torch.outer(t.float(), torch.exp(-math.log(10000) * i / frequencies))
    emb = torch.cat([angle.cos(), angle.sin()], dim=1)
    return F.pad(emb, (0, channels % 2))


@network("openai_unet")
class OpenAIUNet(nn.Module):
    """`network(x, t, class_labels=None) -> F(x)`: `[N, in_channels, H, W]`, `[N]` timesteps and,
    if there are classes, `[N]` integers -> `[N, out_channels, H, W]`.

    Level i has `model_channels * channel_mult[i]` channels and works at H / 2^i; those in
    `attention_levels` have attention, with `num_head_channels` a head or, if that is 0, with
    `num_heads` heads. `resblock_updown`: residual blocks change the size, not convolutions
    (`conv_resample`). The time embedding sees `time_scale * t`. ValueError if a network with
    classes gets no label, or the null class -1, which it was never trained on.
    """

    def __init__(
        self,
        model_channels: int,
        channel_mult: Sequence[float],
        num_res_blocks: int,
        attention_levels: Sequence[int],
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        num_classes: int = 0,
        num_heads: int = 1,
        num_head_channels: int = 0,
        use_new_attention_order: bool = False,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        conv_resample: bool = True,
        time_scale: float = 1.0,
    ):
        super().__init__()
        self.model_channels, self.time_scale = model_channels, time_scale
        emb_channels = 4 * model_channels
        self.time_embed = time_embedding(model_channels)
        self.label_emb = nn.Embedding(num_classes, emb_channels) if num_classes else None

        block = partial(ResBlock, emb_channels=emb_channels, scale_shift=use_scale_shift_norm)

        def attention(channels: int) -> Attention:
            heads = channels // num_head_channels if num_head_channels else num_heads
            if channels % heads or (num_head_channels and channels % num_head_channels):
                raise ValueError(f"{channels} channels cannot be split into such heads")
            return Attention(channels, heads, use_new_attention_order)

        def stage(in_channels: int, out_channels: int, level: int) -> list[nn.Module]:
            with_attention = [attention(out_channels)] if level in attention_levels else []
            return [block(in_channels, out_channels), *with_attention]

        def down(c: int) -> nn.Module:
            return block(c, c, resample=halve) if resblock_updown else Downsample(c, conv_resample)

        def up(c: int) -> nn.Module:
            return block(c, c, resample=double) if resblock_updown else Upsample(c, conv_resample)

        widths = [round(mult * model_channels) for mult in channel_mult]
        self.input_blocks, skips = encoder(in_channels, widths, num_res_blocks, stage, down)
        c = widths[-1]
        self.middle_block = Stage(block(c, c), attention(c), block(c, c))

        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for i in range(num_res_blocks + 1):
                layers = stage(c + skips.pop(), widths[level], level)
                c = widths[level]
                if level > 0 and i == num_res_blocks:
                    layers.append(up(c))
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(GroupNorm(c), nn.SiLU(), conv3x3(c, out_channels))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        emb = self.time_embed(embed_time(self.time_scale * t, self.model_channels).to(x.dtype))
        if self.label_emb is not None:
            emb = emb + self._embed_labels(class_labels)
        skips = []
        for stage in self.input_blocks:
            skips.append(x := stage(x, emb))
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(x)

    @property
    def unconditional(self) -> bool:
        """Whether it also answers without a class."""
        return self.label_emb is None

    def _embed_labels(self, labels: Tensor | None) -> Tensor:
        assert self.label_emb is not None
        # Only on a CPU: reading labels back makes a GPU's host wait, and there the look-up fails.
        if labels is None or (labels.device.type == "cpu" and labels.min() < 0):
            classes = self.label_emb.num_embeddings
            raise ValueError(
                f"this network has no null class: give class_labels from 0 to {classes - 1}"
            )
        return self.label_emb(labels)
