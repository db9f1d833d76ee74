"""kdiff: samplers, schedules and denoisers for diffusion models."""

from kdiff.interrupt import importing

with importing():
    from importlib.metadata import version
    from pathlib import Path

    if not Path(__file__).with_name("samplers").exists():
        # A checkout, where `samplers` stands beside `kdiff`; installed, it stands inside.
        __path__.append(str(Path(__file__).parents[1]))

    from kdiff import analytic, samplers
    from kdiff.betas import alphas_cumprod
    from kdiff.denoiser import Denoiser
    from kdiff.driver import NonFiniteError, State, drive
    from kdiff.models import load
    from kdiff.noise import Noise
    from kdiff.planning import Plan, plan
    from kdiff.precond import Coefs, Precond, precond
    from kdiff.samplers import Sampler, UnknownName
    from kdiff.sampling import run, sample
    from kdiff.schedules import schedule
    from kdiff.wrap import wrap

__version__ = version("kdiff")

__all__ = [
    "Coefs",
    "Denoiser",
    "Noise",
    "NonFiniteError",
    "Plan",
    "Precond",
    "Sampler",
    "State",
    "UnknownName",
    "alphas_cumprod",
    "analytic",
    "drive",
    "load",
    "plan",
    "precond",
    "run",
    "sample",
    "samplers",
    "schedule",
    "wrap",
]
