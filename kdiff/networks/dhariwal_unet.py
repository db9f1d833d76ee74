"""The ADM U-Net of Dhariwal & Nichol 2021 ("Diffusion Models Beat GANs on Image Synthesis"), in the
configuration that Karras et al. 2022 (EDM, table 7) trained for ImageNet-64.

Tensors have the names and shapes of the published EDM checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.labels import one_hot
from kdiff.networks.registry import network
from kdiff.networks.song_unet import Conv2d, Linear, Resample

HEAD_CHANNELS = 64


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-5)


class TimestepEmbedding(nn.Module):
    """`[N] -> [N, channels]`: cos and sin of `x * 10000^(-i / (channels / 2))`."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.channels // 2
        i = torch.arange(half, dtype=torch.float32, device=x.device)
        angle = torch.outer(x.float(), (1 / 10000) ** (i / half))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class ADMBlock(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the embedding, with
    optional self-attention: with (a, b) = affine(emb),
    `x, emb -> skip(x) + conv1(silu(norm1(conv0(silu(norm0(x)))) (1 + a) + b))`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        resample: str | None = None,
        attention: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.in_channels, self.out_channels, self.dropout = in_channels, out_channels, dropout
        self.norm0 = group_norm(in_channels)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample=resample)
        self.affine = Linear(emb_channels, 2 * out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv2d(out_channels, out_channels, 3)
        self.skip: Resample | None = None
        if in_channels != out_channels:
            self.skip = Conv2d(in_channels, out_channels, 1, resample=resample)
        elif resample:
            self.skip = Resample(resample)
        self.heads = out_channels // HEAD_CHANNELS if attention else 0
        if self.heads:
            self.norm2 = group_norm(out_channels)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = h + (x if self.skip is None else self.skip(x))
        return x + self._attention(self.norm2(x)) if self.heads else x

    def _attention(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        # Of a head's channels, 3 i + j is component i of (q, k, v)[j].
        qkv = self.qkv(x).reshape(n, self.heads, c // self.heads, 3, height * width)
        q, k, v = qkv.permute(3, 0, 1, 4, 2).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.proj(h.transpose(2, 3).reshape(n, c, height, width))


@network("dhariwal_unet")
class DhariwalUNet(nn.Module):
    """`network(x, c_noise, class_labels=None) -> F(x)`, all images `[N, C, H, W]`.

    `c_noise` is `[N]`. `class_labels` is `[N]` integers, -1 for the null class, or
    `[N, label_dim]` one-hot rows. `augment_labels` `[N, augment_dim]`: see `SongUNet`.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ):
        super().__init__()
        self.label_dim, self.label_dropout = label_dim, label_dropout
        emb_channels = model_channels * channel_mult_emb
        self.map_noise = TimestepEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, False) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)
        self.map_label = Linear(label_dim, emb_channels, False) if label_dim else None

        block = partial(ADMBlock, emb_channels=emb_channels, dropout=dropout)
        widths = [model_channels * m for m in channel_mult]
        sizes = [img_resolution >> level for level in range(len(widths))]
        names = [f"{size}x{size}" for size in sizes]

        self.enc = nn.ModuleDict()
        c = widths[0]
        self.enc[f"{names[0]}_conv"] = Conv2d(in_channels, c, 3)
        skips = [c]
        for level, (name, size, width) in enumerate(zip(names, sizes, widths, strict=True)):
            if level > 0:
                self.enc[f"{name}_down"] = block(c, c, resample="down")
                skips.append(c)
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = block(c, width, attention=size in attn_resolutions)
                skips.append(c := width)

        self.dec = nn.ModuleDict()
        self.dec[f"{names[-1]}_in0"] = block(c, c, attention=True)
        self.dec[f"{names[-1]}_in1"] = block(c, c)
        for level in reversed(range(len(widths))):
            name, size, width = names[level], sizes[level], widths[level]
            if level < len(widths) - 1:
                self.dec[f"{name}_up"] = block(c, c, resample="up")
            for i in range(num_blocks + 1):
                attention = size in attn_resolutions
                self.dec[f"{name}_block{i}"] = block(c + skips.pop(), width, attention=attention)
                c = width
        self.out_norm = group_norm(c)
        self.out_conv = Conv2d(c, out_channels, 3)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        emb = self._embed(c_noise, class_labels, augment_labels, x.dtype)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, ADMBlock) else layer(x)
            skips.append(x)
        for layer in self.dec.values():
            if x.shape[1] != layer.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))

    def _embed(self, c_noise, class_labels, augment_labels, dtype) -> Tensor:
        emb = self.map_noise(c_noise).to(dtype)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            labels = one_hot(class_labels, self.label_dim, emb)
            if self.training and self.label_dropout:
                labels = labels * (torch.rand_like(labels[:, :1]) >= self.label_dropout)
            emb = emb + self.map_label(labels)
        return F.silu(emb)
