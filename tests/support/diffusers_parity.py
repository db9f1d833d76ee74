"""Samples of diffusers' schedulers and of kdiff's samplers, on one exact model."""

import math
from types import SimpleNamespace

import pytest
import torch

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.betas import sigmas_of
from kdiff.schedules import Range

MODEL = GaussianMixture(
    torch.tensor([[1.0, -0.5, 0.25], [-0.75, 0.5, 1.0], [0.5, 1.25, -1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5, 0.1], dtype=torch.float64),
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
START = torch.tensor([[0.6, -1.1, 0.9], [-1.4, 0.2, -0.3]], dtype=torch.float64)
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TOLERANCE = 1e-12  # with diffusers' arithmetic in float64; up to 9e-15 measured


class Wide:
    """A module whose float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


def draws():
    """The same noises in the same order for both sides."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(START.shape, generator=generator, dtype=torch.float64)


def table(scheduler):
    """The sigma of each training timestep."""
    return sigmas_of(scheduler.alphas_cumprod.double().tolist())


def grid(scheduler):
    """The scheduler's own sigmas, each once (second-order schedulers list them twice)."""
    return list(dict.fromkeys(scheduler.sigmas.tolist()))


def sigma_now(scheduler, t):
    """The noise level at which the scheduler's next evaluation is, without rounding it to t."""
    if not hasattr(scheduler, "sigmas"):
        return table(scheduler)[int(t)]
    i = scheduler.step_index or 0
    if not getattr(scheduler, "state_in_first_order", True) and "KDPM2" in type(scheduler).__name__:
        ancestral = "Ancestral" in type(scheduler).__name__
        return float(scheduler.sigmas_interpol[i - 1 if ancestral else i])
    return float(scheduler.sigmas[i])


def diffusers_sample(scheduler, sigmas, prediction="eps", **step_options):
    """The scheduler's result in the variance-exploding frame, and the network it runs: `eps`, or
    `v`, of the exact denoiser."""
    preserving = isinstance(scheduler.init_noise_sigma, float)  # x_0 + sigma n is divided by scale
    scale = [math.hypot(1, sigma) if preserving else 1 for sigma in (sigmas[0], sigmas[-1])]
    x = sigmas[0] * START / scale[0]
    for t in scheduler.timesteps:
        z = scheduler.scale_model_input(x, t)
        sigma = sigma_now(scheduler, t)
        z = z * math.hypot(1, sigma)
        d = MODEL(z, sigma)
        output = (z - d) / sigma
        if prediction == "v":  # v = alpha eps - (alpha sigma) x_0
            output = (output - sigma * d) / math.hypot(1, sigma)
        x = scheduler.step(output, t, x, **step_options).prev_sample
    return x * scale[1]


def kdiff_sample(name, sigmas, **options):
    noise = draws()
    source = SimpleNamespace(white=lambda s, t: next(noise), brownian=lambda s, t: next(noise))
    plan = kdiff.plan(sampler=name, sigmas=sigmas, options=options)
    *_, last = kdiff.drive(MODEL, plan, plan.sigmas[0] * START, source)
    return last.x


def distance(result, expected):
    """The largest difference, relative to the largest component."""
    return float((result - expected).abs().max() / expected.abs().max())


def case(*args):
    """One parameter set, named after its values."""
    words = (
        ",".join(f"{k}={v}" for k, v in arg.items()) if isinstance(arg, dict) else str(arg)
        for arg in args
    )
    return pytest.param(*args, id="-".join(filter(None, words)))


def discrete_grid(scheduler, name, steps, final):
    return kdiff.schedule(name, steps, span(scheduler), final=final)


def span(scheduler):
    sigmas = table(scheduler)
    return Range(sigmas[0], sigmas[-1], sigmas)
