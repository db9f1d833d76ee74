"""k-diffusion's `image_transformer_v2`, the Hourglass Diffusion Transformer (Crowson et al. 2024):
levels of transformer layers on patches, merged 2 x 2 on the way down and split on the way up, with
attention that is local at fine levels and global in the middle.

Tensors have the names and shapes of k-diffusion's checkpoints, so that their weights load into this
class. Local attention is computed as attention under a mask. So it needs no special library, but as
much memory as global attention.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.k_diffusion_v1 import FourierFeatures
from kdiff.networks.registry import network

AUGMENTATIONS = 9
ATTENTION = ("global", "neighborhood", "shifted-window", "none")


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """scale x / sqrt(mean(x^2)) over the last axis, with the norm in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
    return x * (scale.to(wide) * norm).to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


class AdaptiveRMSNorm(nn.Module):
    """The scale is 1 + w, with w linear in the embedding `cond` `[N, D]`; x is `[N, H, W, C]`."""

    def __init__(self, channels: int, cond_channels: int):
        super().__init__()
        self.linear = nn.Linear(cond_channels, channels, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return rms_norm(x, self.linear(cond)[:, None, None] + 1)


def geglu(x: Tensor) -> Tensor:
    x, gate = x.chunk(2, dim=-1)
    return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int, hidden: int, cond_channels: int):
        super().__init__()
        self.norm = AdaptiveRMSNorm(channels, cond_channels)
        self.up_proj = nn.Linear(channels, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.down_proj(geglu(self.up_proj(self.norm(x, cond))))


class AxialRoPE(nn.Module):
    """Rotary position embedding: the angles of a quarter of a head's channels are proportional to
    the row, those of another quarter to the column. The other channels are not rotated."""

    def __init__(self, head_channels: int, heads: int):
        super().__init__()
        n = head_channels // 8
        freqs = torch.logspace(0, 1, heads * n + 1)[:-1] * math.pi
        self.freqs: Tensor
        self.register_buffer("freqs", freqs.view(n, heads).T.contiguous())

    def forward(self, positions: Tensor) -> Tensor:
        """`[H W, 2] -> [heads, H W, head_channels / 4]`."""
        freqs = self.freqs.to(positions.dtype)[:, None]
        return torch.cat([positions[:, :1] * freqs, positions[:, 1:] * freqs], dim=-1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate the first channels of `x` by `angle`; paired channels are `angle.shape[-1]` apart."""
    n = angle.shape[-1]
    a, b, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head attention with cosine similarity, each head with a scale of its own, among the
    tokens that `mask` `[H W, H W]` allows (None: all)."""

    def __init__(self, channels: int, head_channels: int, cond_channels: int):
        super().__init__()
        self.heads = channels // head_channels
        self.norm = AdaptiveRMSNorm(channels, cond_channels)
        self.qkv_proj = nn.Linear(channels, 3 * channels, bias=False)
        self.scale = nn.Parameter(torch.full([self.heads], 10.0))
        self.pos_emb = AxialRoPE(head_channels, self.heads)
        self.out_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, cond: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        n, tokens = len(x), len(positions)
        qkv = self.qkv_proj(self.norm(x, cond))
        qkv = qkv.reshape(n, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        angle = self.pos_emb(positions)
        q, k = (rotate(self._scaled(part), angle) for part in (q, k))
        h = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)
        return x + self.out_proj(h.transpose(1, 2).reshape(x.shape))

    def _scaled(self, x: Tensor) -> Tensor:
        """Scaled to the length sqrt(scale), so that a product of two is at most the scale."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-6)
        return x * (self.scale.to(wide)[:, None, None].sqrt() * norm).to(x.dtype)


@functools.lru_cache(maxsize=8)
def neighbourhood(height: int, width: int, kernel: int, device: Any) -> Tensor:
    """Each token sees the `kernel` x `kernel` tokens around it. At a border it sees the nearest
    such square inside. `[H W, H W]`."""
    near = []
    for size in (height, width):
        if size < kernel:
            raise ValueError(f"attention in {kernel} x {kernel} needs as many tokens, not {size}")
        i = torch.arange(size, device=device)
        start = (i - kernel // 2).clamp(0, size - kernel)[:, None]
        near.append((start <= i) & (i < start + kernel))
    rows, columns = near
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(height * width, -1)


@functools.lru_cache(maxsize=8)
def windows(height: int, width: int, size: int, shift: int, device: Any) -> Tensor:
    """Each token sees the tokens in its window. Windows of `size` x `size` tile the image, moved by
    `shift` from its corner and cut at the border. `[H W, H W]`."""
    cell = []
    for length in (height, width):
        if length % size:
            raise ValueError(f"attention in windows of {size} needs a multiple of it, not {length}")
        cell.append((torch.arange(length, device=device) + shift).div(size, rounding_mode="floor"))
    rows, columns = cell
    window = (rows[:, None] * (width // size + 2) + columns).flatten()
    return window[:, None] == window


class Layer(nn.Module):
    def __init__(
        self,
        channels: int,
        hidden: int,
        cond_channels: int,
        attention: Mapping[str, Any],
        index: int,
    ):
        super().__init__()
        self.attention, self.index = dict(attention), index
        if attention["type"] != "none":
            head_channels = attention.get("d_head", 64)
            self.self_attn = SelfAttention(channels, head_channels, cond_channels)
        self.ff = FeedForward(channels, hidden, cond_channels)

    def forward(self, x: Tensor, cond: Tensor, positions: Tensor) -> Tensor:
        if self.attention["type"] != "none":
            x = self.self_attn(x, cond, positions, self._mask(x))
        return self.ff(x, cond)

    def _mask(self, x: Tensor) -> Tensor | None:
        _, height, width, _ = x.shape
        if self.attention["type"] == "neighborhood":
            return neighbourhood(height, width, self.attention.get("kernel_size", 7), x.device)
        if self.attention["type"] == "shifted-window":
            size = self.attention["window_size"]
            return windows(height, width, size, size // 2 if self.index % 2 else 0, x.device)
        return None


class Level(nn.ModuleList):
    def forward(self, x: Tensor, cond: Tensor, positions: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, cond, positions)
        return x


class MappingBlock(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.norm = RMSNorm(channels)
        self.up_proj = nn.Linear(channels, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(geglu(self.up_proj(self.norm(x))))


class MappingNetwork(nn.Module):
    def __init__(self, depth: int, channels: int, hidden: int):
        super().__init__()
        self.in_norm = RMSNorm(channels)
        self.blocks = nn.ModuleList(MappingBlock(channels, hidden) for _ in range(depth))
        self.out_norm = RMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        return self.out_norm(x)


class Merge(nn.Module):
    """Each patch of tokens becomes one: `[N, H, W, C] -> [N, H / h, W / w, C']`."""

    def __init__(self, c_in: int, c_out: int, patch: Sequence[int] = (2, 2)):
        super().__init__()
        self.patch = tuple(patch)
        self.proj = nn.Linear(c_in * math.prod(patch), c_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, c = x.shape
        h, w = self.patch
        x = x.reshape(n, height // h, h, width // w, w, c).transpose(2, 3)
        return self.proj(x.flatten(3))


class Split(nn.Module):
    """Each token becomes a patch of tokens, mixed with `skip`, if given, by `fac`."""

    def __init__(self, c_in: int, c_out: int, patch: Sequence[int] = (2, 2), *, mixes: bool = True):
        super().__init__()
        self.patch = tuple(patch)
        self.proj = nn.Linear(c_in, c_out * math.prod(patch), bias=False)
        if mixes:
            self.fac = nn.Parameter(torch.full([1], 0.5))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        n, height, width, _ = x.shape
        h, w = self.patch
        x = self.proj(x).reshape(n, height, width, h, w, -1).transpose(2, 3)
        x = x.reshape(n, height * h, width * w, -1)
        return x if skip is None else torch.lerp(skip, x, self.fac.to(x.dtype))


def axial_positions(height: int, width: int, device: Any) -> Tensor:
    """Where the tokens' centres are, `[H W, 2]`, (row, column), the longer side from -1 to 1."""
    longest = max(height, width)
    rows, columns = (
        (2 * torch.arange(size, device=device) + 1 - size) / longest for size in (height, width)
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


@network("k_diffusion_v2")
class KDiffusionV2(nn.Module):
    """`network(x, c_noise, class_labels=None) -> F(x)`, images `[N, C, H, W]`, `c_noise` `[N]` =
    ln(sigma) / 4, `class_labels` `[N]` integers, -1 or None for the null class.

    Its arguments have the names of k-diffusion's configurations; `self_attns` has a type
    for each level (`ATTENTION`). `mapping_cond` `[N, mapping_cond_dim]` is needed where the model
    has it. The network is told that there was no augmentation.
    ValueError on an unknown kind of attention.
    """

    def __init__(
        self,
        input_channels: int,
        patch_size: Sequence[int],
        depths: Sequence[int],
        widths: Sequence[int],
        self_attns: Sequence[Mapping[str, Any]],
        d_ffs: Sequence[int],
        *,
        mapping_width: int = 256,
        mapping_depth: int = 2,
        mapping_d_ff: int = 768,
        mapping_cond_dim: int = 0,
        num_classes: int = 0,
    ):
        super().__init__()
        for attention in self_attns:
            if attention["type"] not in ATTENTION:
                raise ValueError(f"self-attention of type {attention['type']!r} is not supported")
        self.num_classes = num_classes
        self.patch_in = Merge(input_channels, widths[0], patch_size)
        self.time_emb = FourierFeatures(1, mapping_width)
        self.time_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        self.aug_emb = FourierFeatures(AUGMENTATIONS, mapping_width)
        self.aug_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        if num_classes:  # one more for the null class
            self.class_emb = nn.Embedding(num_classes + 1, mapping_width)
        if mapping_cond_dim:
            self.mapping_cond_in_proj = nn.Linear(mapping_cond_dim, mapping_width, bias=False)
        self.mapping = MappingNetwork(mapping_depth, mapping_width, mapping_d_ff)

        def level(i: int, first: int = 0) -> Level:
            arguments = (widths[i], d_ffs[i], mapping_width, self_attns[i])
            return Level(Layer(*arguments, index) for index in range(first, first + depths[i]))

        *outer, middle = range(len(widths))
        self.down_levels = nn.ModuleList(level(i) for i in outer)
        self.mid_level = level(middle)
        self.up_levels = nn.ModuleList(level(i, depths[i]) for i in outer)
        self.merges = nn.ModuleList(Merge(widths[i], widths[i + 1]) for i in outer)
        self.splits = nn.ModuleList(Split(widths[i + 1], widths[i]) for i in outer)
        self.out_norm = RMSNorm(widths[0])
        self.patch_out = Split(widths[0], input_channels, patch_size, mixes=False)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        mapping_cond: Tensor | None = None,
    ) -> Tensor:
        cond = self._embed(c_noise, class_labels, mapping_cond, x.dtype)
        x = self.patch_in(x.movedim(1, -1))
        skips = []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            x = level(x, cond, self._positions(x))
            skips.append(x)
            x = merge(x)
        x = self.mid_level(x, cond, self._positions(x))
        for level, split, skip in zip(
            reversed(self.up_levels), reversed(self.splits), reversed(skips), strict=True
        ):
            x = split(x, skip)
            x = level(x, cond, self._positions(x))
        return self.patch_out(self.out_norm(x)).movedim(-1, 1)

    def _positions(self, x: Tensor) -> Tensor:
        return axial_positions(x.shape[1], x.shape[2], x.device)

    def _embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        mapping_cond: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        plain = c_noise.new_zeros(len(c_noise), AUGMENTATIONS)
        emb = self.time_in_proj(self.time_emb(c_noise[:, None]).to(dtype))
        emb = emb + self.aug_in_proj(self.aug_emb(plain).to(dtype))
        if self.num_classes:
            null = torch.full_like(c_noise, -1, dtype=torch.long)
            labels = null if class_labels is None else class_labels
            emb = emb + self.class_emb(torch.where(labels < 0, self.num_classes, labels))
        if mapping_cond is not None:
            emb = emb + self.mapping_cond_in_proj(mapping_cond.to(dtype))
        return self.mapping(emb)
