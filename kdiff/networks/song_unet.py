"""The DDPM++ / NCSN++ U-Net of Song et al. 2021 ("Score-Based Generative Modeling through SDEs",
appendix H), in the configuration that Karras et al. 2022 (EDM, table 7) trained.

Tensors have the names and shapes of the published EDM checkpoints, so that their weights load
into this class. DDPM++ is `embedding_type="positional", encoder_type="standard"` with
`resample_filter=(1, 1)`; NCSN++ is `"fourier"`, `"residual"` and `(1, 3, 3, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.frequencies import Frequencies
from kdiff.networks.labels import one_hot
from kdiff.networks.registry import network

Init = Callable[[Tensor], Tensor]
SKIP_SCALE = math.sqrt(0.5)  # a sum of two unit-variance branches keeps unit variance


def xavier(gain: float = 1.0) -> Init:
    return lambda w: nn.init.xavier_uniform_(w, gain=gain)


DEFAULT_INIT = xavier()
ZERO_INIT = xavier(1e-5)  # not exactly zero: EDM's "near zero" output layers


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


class Linear(nn.Linear):
    def __init__(self, fan_in: int, fan_out: int, bias: bool = True, init: Init = DEFAULT_INIT):
        super().__init__(fan_in, fan_out, bias)
        init(self.weight.data)
        if bias:
            nn.init.zeros_(self.bias)


class Resample(nn.Module):
    """2x resampling ("up" or "down", None: as it is) with a separable FIR filter."""

    def __init__(self, resample: str | None, resample_filter: Sequence[float] = (1, 1)):
        super().__init__()
        self.resample = resample
        self.resample_filter: Tensor
        if resample:
            f = torch.tensor(resample_filter, dtype=torch.float32)
            self.register_buffer("resample_filter", torch.outer(f, f)[None, None] / f.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.resample:
            return x
        size, channels = self.resample_filter.shape[-1], x.shape[1]
        if size == 2 and self.resample == "down":  # the box filter: the same numbers, but faster
            return F.avg_pool2d(x, 2)
        if size == 2:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        f, pad = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1), (size - 1) // 2
        if self.resample == "down":
            return F.conv2d(x, f, stride=2, padding=pad, groups=channels)
        return F.conv_transpose2d(x, 4 * f, stride=2, padding=pad, groups=channels)


class Conv2d(Resample):
    """A k x k convolution, after an optional 2x resampling ("up" or "down") with a separable FIR
    filter. `[N, C, H, W] -> [N, C', H', W']` with H' = H, 2 H or H / 2."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        resample: str | None = None,
        resample_filter: Sequence[float] = (1, 1),
        init: Init = DEFAULT_INIT,
    ):
        super().__init__(resample, resample_filter)
        self.weight = nn.Parameter(init(torch.empty(out_channels, in_channels, kernel, kernel)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            super().forward(x), self.weight, self.bias, padding=self.weight.shape[-1] // 2
        )


class ConvThenDown(Conv2d):
    """Convolve, then halve: the order that NCSN++ uses for its residual image pyramid. Beyond the
    border, the filter sees the convolution of the zero padding, not zeros."""

    def forward(self, x: Tensor) -> Tensor:
        f = self.resample_filter.to(x.dtype).expand(self.weight.shape[0], 1, -1, -1)
        pad = self.weight.shape[-1] // 2 + (f.shape[-1] - 1) // 2
        x = F.conv2d(x, self.weight, self.bias, padding=pad)
        return F.conv2d(x, f, stride=2, groups=len(f))


class UNetBlock(nn.Module):
    """Residual block (BigGAN style) with noise embedding and optional self-attention:
    `x, emb -> (skip(x) + conv1(silu(norm1(conv0(silu(norm0(x))) + affine(emb))))) / sqrt(2)`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        resample: str | None = None,
        resample_filter: Sequence[float] = (1, 1),
        attention: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.in_channels, self.out_channels, self.dropout = in_channels, out_channels, dropout
        scaled = partial(Conv2d, resample=resample, resample_filter=resample_filter)
        self.norm0 = group_norm(in_channels)
        self.conv0 = scaled(in_channels, out_channels, 3)
        self.affine = Linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=ZERO_INIT)
        self.skip: Conv2d | None = None
        if resample or in_channels != out_channels:
            self.skip = scaled(in_channels, out_channels, 1)
        self.norm2: nn.GroupNorm | None = None
        if attention:
            self.norm2 = group_norm(out_channels)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, init=xavier(math.sqrt(0.2)))
            self.proj = Conv2d(out_channels, out_channels, 1, init=ZERO_INIT)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h + self.affine(emb)[:, :, None, None]))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * SKIP_SCALE
        return x if self.norm2 is None else (x + self._attention(self.norm2(x))) * SKIP_SCALE

    def _attention(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        # The published layout interleaves q, k, v: channel 3 i + j is component i of (q, k, v)[j].
        qkv = self.qkv(x).reshape(n, c, 3, height * width)
        q, k, v = qkv.permute(2, 0, 3, 1).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.proj(h.transpose(1, 2).reshape(n, c, height, width))


class PositionalEmbedding(nn.Module):
    """`[N] -> [N, channels]`: sin and cos of `x * 10000^(-i / (channels / 2 - 1))` (DDPM)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        i = torch.arange(self.channels // 2, dtype=torch.float32, device=x.device)
        angle = torch.outer(x.float(), (1 / 10000) ** (i / (self.channels // 2 - 1)))
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class FourierEmbedding(Frequencies):
    """`[N] -> [N, channels]`: random Fourier features, sin and cos of `2 pi freqs x` (NCSN++)."""

    def __init__(self, channels: int, scale: float = 16):
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.outer(x.float(), 2 * math.pi * self.freqs.float())
        return torch.cat([angle.sin(), angle.cos()], dim=1)


@network("song_unet")
class SongUNet(nn.Module):
    """`network(x, c_noise, class_labels=None) -> F(x)`, all images `[N, C, H, W]`.

    `c_noise` is `[N]`. `class_labels` is `[N]` integers, -1 for the null class (no class at all,
    which `label_dropout` trains), or `[N, label_dim]` one-hot rows. `augment_labels`
    `[N, augment_dim]` tells an augmented training image from a plain one (Karras et al. 2022,
    appendix F.2); leave it out when sampling.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        channel_mult_emb: int = 4,
        channel_mult_noise: int = 1,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        encoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ):
        super().__init__()
        self.label_dim, self.label_dropout = label_dim, label_dropout
        noise_channels = model_channels * channel_mult_noise
        emb_channels = model_channels * channel_mult_emb
        embedding = {"positional": PositionalEmbedding, "fourier": FourierEmbedding}
        self.map_noise = embedding[embedding_type](noise_channels)
        self.map_label = Linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = Linear(augment_dim, noise_channels, False) if augment_dim else None
        self.map_layer0 = Linear(noise_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)

        def block(cin: int, cout: int, resample: str | None = None, attention: bool = False):
            return UNetBlock(
                cin,
                cout,
                emb_channels,
                resample=resample,
                resample_filter=resample_filter,
                attention=attention,
                dropout=dropout,
            )

        widths = [model_channels * m for m in channel_mult]
        sizes = [img_resolution >> level for level in range(len(widths))]
        names = [f"{size}x{size}" for size in sizes]

        self.enc = nn.ModuleDict()
        c, aux = model_channels, in_channels
        self.enc[f"{names[0]}_conv"] = Conv2d(in_channels, c, 3)
        skips = [c]
        for level, (name, size, width) in enumerate(zip(names, sizes, widths, strict=True)):
            if level > 0:
                self.enc[f"{name}_down"] = block(c, c, "down")
                skips.append(c)
                if encoder_type == "residual":
                    self.enc[f"{name}_aux_residual"] = ConvThenDown(
                        aux, c, 3, resample="down", resample_filter=resample_filter
                    )
                    aux = c
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = block(c, width, attention=size in attn_resolutions)
                skips.append(c := width)

        self.dec = nn.ModuleDict()
        self.dec[f"{names[-1]}_in0"] = block(c, c, attention=True)
        self.dec[f"{names[-1]}_in1"] = block(c, c)
        for level in reversed(range(len(widths))):
            name, size, width = names[level], sizes[level], widths[level]
            if level < len(widths) - 1:
                self.dec[f"{name}_up"] = block(c, c, "up")
            for i in range(num_blocks + 1):
                attention = i == num_blocks and size in attn_resolutions
                self.dec[f"{name}_block{i}"] = block(c + skips.pop(), width, attention=attention)
                c = width
        self.dec[f"{names[0]}_aux_norm"] = group_norm(c)
        self.dec[f"{names[0]}_aux_conv"] = Conv2d(c, out_channels, 3, init=ZERO_INIT)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        emb = self._embed(c_noise, class_labels, augment_labels, x.dtype)
        skips: list[Tensor] = []
        aux = x
        for name, layer in self.enc.items():
            if "aux_residual" in name:
                x = skips[-1] = aux = (x + layer(aux)) * SKIP_SCALE
            else:
                x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
                skips.append(x)
        *blocks, norm, conv = self.dec.values()
        for layer in blocks:
            if x.shape[1] != layer.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, emb)
        return conv(F.silu(norm(x)))

    def _embed(self, c_noise, class_labels, augment_labels, dtype) -> Tensor:
        emb = self.map_noise(c_noise).to(dtype)
        if self.map_label is not None:
            labels = one_hot(class_labels, self.label_dim, emb)
            if self.training and self.label_dropout:
                labels = labels * (torch.rand_like(labels[:, :1]) >= self.label_dropout)
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb))
        emb = F.silu(self.map_layer0(emb))
        return F.silu(self.map_layer1(emb))
