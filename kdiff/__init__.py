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
    from kdiff.conditions import Shared
    from kdiff.denoiser import Denoiser
    from kdiff.driver import NonFiniteError, State, TooManyEvaluations, drive
    from kdiff.guidance import guide
    from kdiff.model import Model
    from kdiff.models import load
    from kdiff.noise import Noise
    from kdiff.plans import Plan, plan
    from kdiff.preconditioners import Coefs, Precond, precond
    from kdiff.samplers import Sampler, UnknownName
    from kdiff.sampling import run, sample
    from kdiff.schedules import schedule
    from kdiff.wrapping import wrap

__version__ = version("kdiff")

__all__ = [
    "Coefs",
    "Denoiser",
    "Model",
    "Noise",
    "NonFiniteError",
    "Plan",
    "Precond",
    "Sampler",
    "Shared",
    "State",
    "TooManyEvaluations",
    "UnknownName",
    "alphas_cumprod",
    "analytic",
    "drive",
    "guide",
    "load",
    "plan",
    "precond",
    "run",
    "sample",
    "samplers",
    "schedule",
    "wrap",
]
