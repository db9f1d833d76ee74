"""The magnitude-preserving U-Net of EDM2 (Karras et al. 2024, "Analyzing and Improving the Training
Dynamics of Diffusion Models", configuration G; its equation numbers), for inference.

Every layer keeps the expected magnitude of its input. There are no biases and no group norms, and
weights are normalised in each call. Tensors have the names and shapes of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.frequencies import Frequencies
from kdiff.networks.labels import one_hot
from kdiff.networks.registry import network

EPS = 1e-4


def rms(x: Tensor, dim: int | Sequence[int]) -> Tensor:
    """The root mean square over `dim`, in float32 or wider, plus a small constant."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return EPS + norm * math.sqrt(norm.numel() / x.numel())


def pixel_norm(x: Tensor, dim: int = 1) -> Tensor:
    return x / rms(x, dim).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """Eq. 81."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Eq. 88: the mean, weighted 1 - t and t, of two uncorrelated tensors of unit magnitude."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Eq. 103: concatenation of channels where `b` contributes as `mp_sum` would have it."""
    na, nb = a.shape[1], b.shape[1]
    c = math.sqrt(na + nb) / math.hypot(1 - t, t)
    return torch.cat([a * (c * (1 - t) / math.sqrt(na)), b * (c * t / math.sqrt(nb))], dim=1)


class MPFourier(Frequencies):
    """`[N] -> [N, channels]`: random Fourier features `sqrt(2) cos(freqs x + phases)` (eq. 75)."""

    def __init__(self, channels: int):
        super().__init__()
        self.freqs: Tensor
        self.phases: Tensor
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.outer(x.float(), self.freqs.float()) + self.phases.float()
        return angle.cos() * math.sqrt(2)


class MPConv(nn.Module):
    """A convolution, or with `kernel=0` a linear layer, whose weights have unit magnitude for each
    output (eq. 47). `gain` scales the output."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 0):
        super().__init__()
        self.out_channels = out_channels
        size = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *size))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        fan_in = self.weight[0].numel()
        scale = gain / (rms(self.weight, list(range(1, self.weight.ndim))) * math.sqrt(fan_in))
        w = (self.weight * scale).to(x.dtype)
        return x @ w.t() if w.ndim == 2 else F.conv2d(x, w, padding=w.shape[-1] // 2)


class MPBlock(nn.Module):
    """Residual block (figure 21). An encoder's (`decoder=False`) projects and normalises its input
    first; a decoder's projects it beside the residual branch."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        decoder: bool,
        resample: str | None = None,
        attention: bool = False,
        channels_per_head: int,
        dropout: float,
        res_balance: float,
        attn_balance: float,
        clip_act: float | None,
    ):
        super().__init__()
        self.decoder, self.dropout, self.clip_act = decoder, dropout, clip_act
        self.res_balance, self.attn_balance = res_balance, attn_balance
        self.heads = out_channels // channels_per_head if attention else 0
        self.resample = resample
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(in_channels if decoder else out_channels, out_channels, 3)
        self.emb_linear = MPConv(emb_channels, out_channels)
        self.conv_res1 = MPConv(out_channels, out_channels, 3)
        self.conv_skip = (
            MPConv(in_channels, out_channels, 1) if in_channels != out_channels else None
        )
        if self.heads:
            self.attn_qkv = MPConv(out_channels, 3 * out_channels, 1)
            self.attn_proj = MPConv(out_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.resample == "down":  # both with the box filter
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if not self.decoder:
            x = pixel_norm(self._project(x))
        y = self.conv_res0(mp_silu(x))
        c = self.emb_linear(emb, gain=self.emb_gain) + 1
        y = mp_silu(y * c[:, :, None, None].to(y.dtype))
        y = self.conv_res1(F.dropout(y, self.dropout, self.training))
        x = mp_sum(self._project(x) if self.decoder else x, y, self.res_balance)
        if self.heads:
            x = mp_sum(x, self._attention(x), self.attn_balance)
        return x if self.clip_act is None else x.clamp(-self.clip_act, self.clip_act)

    def _project(self, x: Tensor) -> Tensor:
        return x if self.conv_skip is None else self.conv_skip(x)

    def _attention(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        # Of a head's channels, 3 i + j is component i of (q, k, v)[j].
        qkv = self.attn_qkv(x).reshape(n, self.heads, c // self.heads, 3, height * width)
        q, k, v = pixel_norm(qkv, dim=2).permute(3, 0, 1, 4, 2).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.attn_proj(h.transpose(2, 3).reshape(n, c, height, width))


@network("edm2_unet")
class EDM2UNet(nn.Module):
    """`network(x, c_noise, class_labels=None) -> F(x)`, all images `[N, C, H, W]`.

    `c_noise` is `[N]`. `class_labels` is `[N]` integers, -1 for the null class, or
    `[N, label_dim]` one-hot rows. `channel_mult_noise` and `channel_mult_emb` default to the
    first and the largest of `channel_mult`; `label_balance` and `concat_balance` are the t of
    `mp_sum` and `mp_cat`. So are `res_balance` and `attn_balance` in a block, whose output is
    clipped to +-`clip_act`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        *,
        label_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256.0,
    ):
        super().__init__()
        self.label_dim = label_dim
        self.label_balance, self.concat_balance = label_balance, concat_balance
        noise_channels = model_channels * (channel_mult_noise or channel_mult[0])
        emb_channels = model_channels * (channel_mult_emb or max(channel_mult))
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(noise_channels)
        self.emb_noise = MPConv(noise_channels, emb_channels)
        self.emb_label = MPConv(label_dim, emb_channels) if label_dim else None

        widths = [model_channels * m for m in channel_mult]
        sizes = [img_resolution >> level for level in range(len(widths))]
        names = [f"{size}x{size}" for size in sizes]
        block = partial(
            MPBlock,
            emb_channels=emb_channels,
            channels_per_head=channels_per_head,
            dropout=dropout,
            res_balance=res_balance,
            attn_balance=attn_balance,
            clip_act=clip_act,
        )
        enc, dec = partial(block, decoder=False), partial(block, decoder=True)

        self.enc = nn.ModuleDict()
        c = widths[0]
        self.enc[f"{names[0]}_conv"] = MPConv(img_channels + 1, c, 3)
        skips = [c]
        for level, (name, size, width) in enumerate(zip(names, sizes, widths, strict=True)):
            if level > 0:
                self.enc[f"{name}_down"] = enc(c, c, resample="down")
                skips.append(c)
            for i in range(num_blocks):
                self.enc[f"{name}_block{i}"] = enc(c, width, attention=size in attn_resolutions)
                skips.append(c := width)

        self.dec = nn.ModuleDict()
        self.dec[f"{names[-1]}_in0"] = dec(c, c, attention=True)
        self.dec[f"{names[-1]}_in1"] = dec(c, c)
        for level in reversed(range(len(widths))):
            name, size, width = names[level], sizes[level], widths[level]
            if level < len(widths) - 1:
                self.dec[f"{name}_up"] = dec(c, c, resample="up")
            for i in range(num_blocks + 1):
                attention = size in attn_resolutions
                self.dec[f"{name}_block{i}"] = dec(c + skips.pop(), width, attention=attention)
                c = width
        self.out_conv = MPConv(c, img_channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        emb = self._embed(c_noise, class_labels)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # a channel of ones replaces biases
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, MPBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), self.concat_balance)
            x = layer(x, emb)
        return self.out_conv(x, gain=self.out_gain)

    def _embed(self, c_noise: Tensor, class_labels: Tensor | None) -> Tensor:
        emb = self.emb_noise(self.emb_fourier(c_noise))  # in float32, also for half precision
        if self.emb_label is not None:
            labels = one_hot(class_labels, self.label_dim, emb) * math.sqrt(self.label_dim)
            emb = mp_sum(emb, self.emb_label(labels), self.label_balance)
        return mp_silu(emb)
