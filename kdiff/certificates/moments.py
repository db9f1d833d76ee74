"""Mean and variance, on a Gaussian, of a sampler that draws noise."""

from __future__ import annotations

import math

import torch

from kdiff.certificates.finding import Finding
from kdiff.certificates.gaussians import MEAN, STD, response
from kdiff.certificates.problems import GAUSSIAN
from kdiff.certificates.runs import Options, grid, solve
from kdiff.certificates.tolerances import tightened
from kdiff.noise import Noise
from kdiff.samplers import Sampler

SIGMA_MAX, SIGMA_MIN = 20.0, 0.05
STEPS = 256
TOLERANCE = 1e-3  # of adaptive samplers
SAMPLES = 10_000  # whose standard errors are the measure
MOST_ERRORS = 3.0


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """After 256 steps, within three standard errors of 10,000 samples: exactly for a linear
    sampler, whose mean and variance are known, and of as many samples for any other."""
    if not sampler.stochastic(options) or not sampler.keeps_marginals:
        return None
    if sampler.limit is not None:
        options = tightened(sampler, options, TOLERANCE)
    mean, variance = errors(*moments(sampler, options, STEPS))
    off = not max(mean, variance) <= MOST_ERRORS
    return Finding(
        f"{max(mean, variance):.1f}",
        {"mean": mean, "variance": variance},
        f"its mean is {mean:.1f}, its variance {variance:.1f} standard errors off" if off else "",
    )


def moments(sampler: Sampler, options: Options, steps: int) -> tuple[float, float]:
    """Mean and variance at sigma = 0.05, from the exact marginal at 20."""
    levels = grid(steps, SIGMA_MIN, SIGMA_MAX)
    if sampler.linear and sampler.limit is None:
        return response(sampler, options, levels).moments(sampler.noise or "white", SIGMA_MAX)
    noise = Noise([1], (SAMPLES,), torch.float64)
    start = MEAN + math.hypot(STD, SIGMA_MAX) * noise.initial()
    x = solve(sampler, options, levels, GAUSSIAN, start).x
    return float(x.mean()), float(x.var())


def errors(mean: float, variance: float) -> tuple[float, float]:
    """How far both are off, over the standard errors of 10,000 exact samples."""
    truth = STD**2 + SIGMA_MIN**2
    return (
        abs(mean - MEAN) / math.sqrt(truth / SAMPLES),
        abs(variance / truth - 1) / math.sqrt(2 / (SAMPLES - 1)),
    )
