"""The U-Net of `denoising-diffusion-pytorch`, versions 2.x: residual blocks with RMS norm, linear
attention (Shen et al. 2018) on the outer levels and full attention on the innermost, both with a
few learned memory keys and values.

Tensors have the names and shapes of its checkpoints, so that their weights load into this class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdiff.networks.registry import network


class RMSNorm(nn.Module):
    """`x / rms(x) * g` over the channels of `[N, C, H, W]`."""

    def __init__(self, channels: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.g * math.sqrt(x.shape[1])


class SinusoidalEmbedding(nn.Module):
    """`[N] -> [N, channels]`: sin, then cos, of `t * theta^(-i / (channels / 2 - 1))`."""

    def __init__(self, channels: int, theta: float = 10000):
        super().__init__()
        self.frequencies, self.theta = channels // 2, theta

    def forward(self, t: Tensor) -> Tensor:
        i = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
        rate = -math.log(self.theta) / (self.frequencies - 1)
        angle = torch.outer(t.float(), torch.exp(rate * i))
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Block(nn.Module):
    """`silu((1 + scale) norm(proj(x)) + shift)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = RMSNorm(out_channels)

    def forward(self, x: Tensor, scale: Tensor | float = 0, shift: Tensor | float = 0) -> Tensor:
        return F.silu(self.norm(self.proj(x)) * (scale + 1) + shift)


class ResnetBlock(nn.Module):
    """Two blocks, the first one scaled and shifted by the time embedding, and a skip."""

    def __init__(self, in_channels: int, out_channels: int, *, emb_channels: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.block1 = Block(in_channels, out_channels)
        self.block2 = Block(out_channels, out_channels)
        same = in_channels == out_channels
        self.res_conv = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.mlp(emb)[:, :, None, None].chunk(2, dim=1)
        return self.res_conv(x) + self.block2(self.block1(x, scale, shift))


class FullAttention(nn.Module):
    """Softmax attention over all positions and `memory` learned ones, added to `x`."""

    def __init__(self, channels: int, heads: int, head_channels: int, memory: int):
        super().__init__()
        self.heads = heads
        hidden = heads * head_channels
        self.norm = RMSNorm(channels)
        self.mem_kv = nn.Parameter(self._new_memory(heads, head_channels, memory))
        self.to_qkv = nn.Conv2d(channels, 3 * hidden, 1, bias=False)
        self.to_out: nn.Module = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(n, 3, self.heads, -1, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [N, heads, positions, head channels]
        mem_k, mem_v = self._memory(n)
        out = self._mix(q, torch.cat([mem_k, k], dim=-2), torch.cat([mem_v, v], dim=-2))
        return x + self.to_out(out.transpose(-1, -2).reshape(n, -1, height, width))

    def _new_memory(self, heads: int, head_channels: int, memory: int) -> Tensor:
        return torch.randn(2, heads, memory, head_channels)

    def _memory(self, n: int) -> Tensor:
        """Keys and values, `[2, N, heads, memory, head channels]`."""
        return self.mem_kv[:, None].expand(-1, n, -1, -1, -1)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class LinearAttention(FullAttention):
    """Attention at a cost linear in the positions: `softmax(q) (softmax(k)^T v)`, where q is
    normalised over its channels and k over the positions."""

    def __init__(self, channels: int, heads: int, head_channels: int, memory: int):
        super().__init__(channels, heads, head_channels, memory)
        self.to_out = nn.Sequential(self.to_out, RMSNorm(channels))

    def _new_memory(self, heads: int, head_channels: int, memory: int) -> Tensor:
        return torch.randn(2, heads, head_channels, memory)

    def _memory(self, n: int) -> Tensor:
        return super()._memory(n).transpose(-1, -2)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context = k.softmax(dim=-2).transpose(-1, -2) @ v
        return q.softmax(dim=-1) / math.sqrt(q.shape[-1]) @ context


def downsample(in_channels: int, out_channels: int) -> nn.Module:
    """Each 2 x 2 square becomes one position of 4 times the channels, then a 1 x 1 convolution."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1))


def upsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), same_size(in_channels, out_channels))


same_size = partial(nn.Conv2d, kernel_size=3, padding=1)


@network("lucidrains_unet")
class LucidrainsUNet(nn.Module):
    """`network(x, t) -> F(x)`: `[N, channels, H, W]`, `[N]` timesteps -> `[N, out_channels, H, W]`.

    `widths` has one number a level, each level half as large as the one before; so H and W must be
    divisible by `2^(levels - 1)`. `full_attention`, `heads` and `head_channels` have one value a
    level. With `self_condition` the network was also trained to see an earlier estimate of the
    clean data; here it gets zeros instead, which its training used as well.
    """

    def __init__(
        self,
        dim: int,
        init_dim: int,
        widths: Sequence[int],
        *,
        full_attention: Sequence[bool],
        heads: Sequence[int],
        head_channels: Sequence[int],
        channels: int = 3,
        out_channels: int = 3,
        memory: int = 4,
        self_condition: bool = False,
        theta: float = 10000,
    ):
        super().__init__()
        self.self_condition = self_condition
        self.init_conv = nn.Conv2d(channels * (1 + self_condition), init_dim, 7, padding=3)
        emb_channels = 4 * dim
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(dim, theta),
            nn.Linear(dim, emb_channels),
            nn.GELU(),
            nn.Linear(emb_channels, emb_channels),
        )
        block = partial(ResnetBlock, emb_channels=emb_channels)

        def attention(level: int, width: int, full: bool) -> nn.Module:
            kind = FullAttention if full else LinearAttention
            return kind(width, heads[level], head_channels[level], memory)

        inputs = [init_dim, *widths[:-1]]
        last = len(widths) - 1
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level, (c, width) in enumerate(zip(inputs, widths, strict=True)):
            down = same_size if level == last else downsample
            full = full_attention[level]
            parts = [block(c, c), block(c, c), attention(level, c, full), down(c, width)]
            self.downs.append(nn.ModuleList(parts))
        for level in reversed(range(len(widths))):
            c, width = inputs[level], widths[level]
            up = same_size if level == 0 else upsample
            blocks = [block(width + c, width), block(width + c, width)]
            parts = [*blocks, attention(level, width, full_attention[level]), up(width, c)]
            self.ups.append(nn.ModuleList(parts))
        self.mid_block1 = block(widths[-1], widths[-1])
        self.mid_attn = attention(last, widths[-1], True)
        self.mid_block2 = block(widths[-1], widths[-1])
        self.final_res_block = block(2 * init_dim, init_dim)
        self.final_conv = nn.Conv2d(init_dim, out_channels, 1)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        emb = self.time_mlp[0](t).to(x.dtype)
        for layer in self.time_mlp[1:]:
            emb = layer(emb)
        if self.self_condition:
            x = torch.cat([torch.zeros_like(x), x], dim=1)
        x = self.init_conv(x)
        skips = [x]
        for block1, block2, attention, down in self._levels(self.downs):
            skips.append(x := block1(x, emb))
            skips.append(x := attention(block2(x, emb)))
            x = down(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, emb)), emb)
        for block1, block2, attention, up in self._levels(self.ups):
            x = block1(torch.cat([x, skips.pop()], dim=1), emb)
            x = block2(torch.cat([x, skips.pop()], dim=1), emb)
            x = up(attention(x))
        return self.final_conv(self.final_res_block(torch.cat([x, skips.pop()], dim=1), emb))

    @staticmethod
    def _levels(half: nn.ModuleList) -> list[list[nn.Module]]:
        return [list(level) for level in half]  # type: ignore[call-overload]
