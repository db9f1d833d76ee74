"""`k_diffusion.utils`'s distributions of the noise level in training, by inverting their
distribution functions. From the same state of torch's global generator they draw the same numbers.

In `enable_stratified` the uniform numbers behind them are stratified: in a batch of N, each lies
in an N-th of its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

_Shape = Sequence[int]
stratified_settings = threading.local()


def stratified_uniform(
    shape: _Shape, group: int = 0, groups: int = 1, dtype: Any = None, device: Any = None
) -> Tensor:
    """Uniform numbers, one in each `shape[-1]`-th of [0, 1); with `groups`, of which this process
    draws for one, in each n-th for the n of all groups together. ValueError on such a group."""
    if not 0 <= group < groups:
        raise ValueError(f"group must be from 0 to groups - 1, not {group} of {groups}")
    n = shape[-1] * groups
    offsets = torch.arange(group, n, groups, dtype=dtype, device=device)
    return (offsets + torch.rand(shape, dtype=dtype, device=device)) / n


@contextmanager
def enable_stratified(group: int = 0, groups: int = 1, disable: bool = False) -> Iterator[None]:
    """A context in which the densities of this thread are stratified."""
    before = dict(vars(stratified_settings))
    try:
        vars(stratified_settings).update(disable=disable, group=group, groups=groups)
        yield
    finally:
        vars(stratified_settings).clear()
        vars(stratified_settings).update(before)


def enable_stratified_accelerate(
    accelerator: Any, disable: bool = False
) -> AbstractContextManager[None]:
    """The same over all processes and accumulated steps of Hugging Face's `Accelerator`."""
    steps = accelerator.gradient_state.num_steps
    group = accelerator.process_index * steps + accelerator.step % steps
    return enable_stratified(group, accelerator.num_processes * steps, disable)


def stratified_with_settings(shape: _Shape, dtype: Any = None, device: Any = None) -> Tensor:
    """Uniform numbers, stratified as the context says, if there is one."""
    now = vars(stratified_settings)
    if now.get("disable", True):
        return torch.rand(shape, dtype=dtype, device=device)
    return stratified_uniform(shape, now["group"], now["groups"], dtype, device)


def rand_log_normal(shape: _Shape, loc=0.0, scale=1.0, device="cpu", dtype=torch.float32) -> Tensor:
    """ln sigma is normal."""
    u = stratified_with_settings(shape, device=device, dtype=dtype) * (1 - 2e-7) + 1e-7
    return (loc + scale * math.sqrt(2) * torch.erfinv(2 * u - 1)).exp()


def rand_log_logistic(
    shape: _Shape,
    loc=0.0,
    scale=1.0,
    min_value=0.0,
    max_value=float("inf"),
    device="cpu",
    dtype=torch.float32,
) -> Tensor:
    """ln sigma is logistic, between the logarithms of two bounds."""
    bounds = torch.tensor([min_value, max_value], device=device, dtype=torch.float64)
    low, high = ((bounds.log() - loc) / scale).sigmoid()
    u = low + (high - low) * stratified_with_settings(shape, device=device, dtype=torch.float64)
    return (loc + scale * u.logit()).exp().to(dtype)


def rand_log_uniform(
    shape: _Shape, min_value, max_value, device="cpu", dtype=torch.float32
) -> Tensor:
    """ln sigma is uniform between two bounds."""
    low, high = math.log(min_value), math.log(max_value)
    return (low + (high - low) * stratified_with_settings(shape, dtype, device)).exp()


def rand_v_diffusion(
    shape: _Shape,
    sigma_data=1.0,
    min_value=0.0,
    max_value=float("inf"),
    device="cpu",
    dtype=torch.float32,
) -> Tensor:
    """The angle atan(sigma / sigma_data) is uniform, as it is in the time of a cosine schedule."""
    low, high = (2 / math.pi * math.atan(bound / sigma_data) for bound in (min_value, max_value))
    u = low + (high - low) * stratified_with_settings(shape, dtype, device)
    return sigma_data * (u * math.pi / 2).tan()


def rand_cosine_interpolated(
    shape: _Shape,
    image_d,
    noise_d_low,
    noise_d_high,
    sigma_data=1.0,
    min_value=1e-3,
    max_value=1e3,
    device="cpu",
    dtype=torch.float32,
) -> Tensor:
    """The cosine schedule shifted for a size of image, interpolated between two shifts
    (Hoogeboom et al. 2023, "simple diffusion", sections 3.1 and 3.2)."""
    u = stratified_with_settings(shape, dtype, device)

    def log_snr(noise_d: float) -> Tensor:
        shift = noise_d / image_d
        first, last = (math.atan(end / sigma_data * shift) for end in (max_value, min_value))
        return 2 * (math.log(shift) - (first + u * (last - first)).tan().log())

    return sigma_data * (-torch.lerp(log_snr(noise_d_low), log_snr(noise_d_high), u) / 2).exp()


def rand_split_log_normal(
    shape: _Shape, loc, scale_1, scale_2, device="cpu", dtype=torch.float32
) -> Tensor:
    """ln sigma is normal on either side of `loc`, with a width of its own on each. Never
    stratified."""
    n = torch.randn(shape, device=device, dtype=dtype).abs()
    left = torch.rand(shape, device=device, dtype=dtype) < scale_1 / (scale_1 + scale_2)
    return (loc + torch.where(left, -scale_1 * n, scale_2 * n)).exp()
