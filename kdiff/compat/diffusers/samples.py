"""What happens to samples: noise is mixed in, the denoised are limited, seeds are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdiff.preconditioners import Precond

Generators = torch.Generator | Sequence[torch.Generator] | None


def noised(precond: Precond, sigmas: Sequence[float], x: Tensor, noise: Tensor) -> Tensor:
    """c_in(sigma) (x + sigma n), in x's dtype. `sigmas`: one, or one for each sample."""
    scales = [precond(s).c_in if s else 1.0 for s in sigmas]
    return _mix(x, scales, noise, [c * s for c, s in zip(scales, sigmas, strict=True)])


def velocity(precond: Precond, sigmas: Sequence[float], x: Tensor, noise: Tensor) -> Tensor:
    """alpha n - alpha sigma x, which a v-prediction network is trained on."""
    scales = [precond(s).c_in for s in sigmas]
    return _mix(x, [-c * s for c, s in zip(scales, sigmas, strict=True)], noise, scales)


def limited(config: Mapping[str, Any], denoised: Tensor) -> Tensor:
    """The denoised as the configuration wants them: dynamic thresholding (Saharia et al. 2022), or
    clipped if `clip` asks for it."""
    if config.get("thresholding"):
        ratio = config.get("dynamic_thresholding_ratio", 0.995)
        most = config.get("sample_max_value", 1.0)
        size = denoised.abs().flatten(1).float().quantile(ratio, dim=1).clamp(1, max(1, most))
        size = size.to(denoised.dtype).reshape(-1, *[1] * (denoised.ndim - 1))
        return denoised.clamp(-size, size) / size
    if config.get("clip") and config.get("clip_sample"):
        most = config.get("clip_sample_range", 1.0)
        return denoised.clamp(-most, most)
    return denoised


def draw_seeds(x: Tensor, generator: Generators) -> list[int]:
    """A seed for each sample: from the generators, or from the bits of the samples themselves."""
    if generator is None:  # the start came from somebody's generator: its bits are as random
        rows = x.detach().cpu().contiguous().float().numpy()
        digests = (hashlib.sha256(row.tobytes()).digest() for row in rows)
        return [int.from_bytes(digest[:8], "little") for digest in digests]
    each = [generator] * len(x) if isinstance(generator, torch.Generator) else generator
    return [int(torch.randint(2**63 - 1, (), generator=g, device=g.device)) for g in each]


def _mix(x: Tensor, a: Sequence[float], noise: Tensor, b: Sequence[float]) -> Tensor:
    try:
        shape = torch.broadcast_shapes(x.shape, noise.shape)
    except RuntimeError:
        shape = torch.Size()
    if not shape:
        raise ValueError(f"noise {tuple(noise.shape)} does not fit samples {tuple(x.shape)}")
    if len(a) not in (1, shape[0]):
        raise ValueError(f"{len(a)} timesteps for {shape[0]} samples: give one, or one for each")
    wide = torch.promote_types(x.dtype, torch.float32)
    columns = [
        torch.tensor(each, dtype=wide, device=x.device).reshape(-1, *[1] * (len(shape) - 1))
        for each in (a, b)
    ]
    return (columns[0] * x.to(wide) + columns[1] * noise.to(wide)).to(x.dtype)
