"""kdiff's samplers as a scheduler for diffusers' pipelines.

    pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler="unipc")

A sampler here is a coroutine that asks for denoised images, so the pipeline's loop can be what
drives it: `timesteps` has one entry for each evaluation, and each `step` answers one ask.
"""

from kdiff.compat.diffusers.grids import evaluation_levels
from kdiff.compat.diffusers.scheduler import KDiffScheduler, KDiffSchedulerOutput

__all__ = ["KDiffScheduler", "KDiffSchedulerOutput", "evaluation_levels"]
