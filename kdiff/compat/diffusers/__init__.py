"""kdiff's samplers as a scheduler for diffusers' pipelines.

    pipe.scheduler = KDiffScheduler.from_config(pipe.scheduler.config, sampler="unipc")

A sampler here is a coroutine that asks for denoised images, so the pipeline's loop can be what
drives it: `timesteps` has one entry for each evaluation, and each `step` answers one ask.
"""

try:
    from kdiff.compat.diffusers.scheduler import KDiffScheduler, KDiffSchedulerOutput
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "diffusers":
        raise
    raise ImportError("kdiff.compat.diffusers needs diffusers: pip install diffusers") from error

__all__ = ["KDiffScheduler", "KDiffSchedulerOutput"]
