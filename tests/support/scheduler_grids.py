"""A network and a loop to compare KDiffScheduler with a scheduler of diffusers."""

import diffusers
import torch

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FlowEuler = diffusers.FlowMatchEulerDiscreteScheduler


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(z, t):
    return torch.sin(2 * z + t / 300) + 0.1 * z


def loop(scheduler, z):
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        z = scheduler.step(network(scaled, t), t, z, return_dict=False)[0]
    return z


def close(ours, theirs, tolerance=1e-5):
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()
