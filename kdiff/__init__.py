"""kdiff: samplers, schedules and denoisers for diffusion models.

`__all__` is what programs can rely on, with the rooms `kdiff.eval` and `kdiff.compat`. All else is
kdiff's own. Each name is imported at its first use, so that what needs no torch does not wait for
it.
"""

from __future__ import annotations

from kdiff.interrupt import importing

with importing():
    from importlib import import_module
    from importlib.metadata import version
    from importlib.util import find_spec
    from pathlib import Path
    from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdiff import analytic, editing, guidance, samplers
    from kdiff import compat as compat
    from kdiff import eval as eval
    from kdiff.betas import alphas_cumprod
    from kdiff.certificates import Certificate, certify
    from kdiff.conditions import Shared
    from kdiff.denoiser import Denoiser
    from kdiff.driver import NonFiniteError, State, TooManyEvaluations, drive
    from kdiff.guidance import guide
    from kdiff.inversion import invert
    from kdiff.model import Model
    from kdiff.models import load
    from kdiff.modifications import Modification
    from kdiff.names import UnknownName
    from kdiff.noise import Noise
    from kdiff.options import Option
    from kdiff.plans import Plan, plan
    from kdiff.preconditioners import Coefs, Precond, precond
    from kdiff.samplers import Sampler
    from kdiff.sampling import run, sample
    from kdiff.schedules import schedule
    from kdiff.wrapping import wrap

if not Path(__file__).with_name("samplers").exists():
    # A checkout, where `samplers` stands beside `kdiff`; installed, it stands inside.
    __path__.append(str(Path(__file__).parents[1]))

__version__ = version("kdiff")

__all__ = [
    "Certificate",
    "Coefs",
    "Denoiser",
    "Model",
    "Modification",
    "Noise",
    "NonFiniteError",
    "Option",
    "Plan",
    "Precond",
    "Sampler",
    "Shared",
    "State",
    "TooManyEvaluations",
    "UnknownName",
    "alphas_cumprod",
    "analytic",
    "certify",
    "drive",
    "editing",
    "guidance",
    "guide",
    "invert",
    "load",
    "plan",
    "precond",
    "run",
    "sample",
    "samplers",
    "schedule",
    "wrap",
]

# Where each name is; a name that is not here is a module.
_HOMES = {
    "Certificate": "certificates",
    "Coefs": "preconditioners",
    "Denoiser": "denoiser",
    "Model": "model",
    "Modification": "modifications",
    "Noise": "noise",
    "NonFiniteError": "driver",
    "Option": "options",
    "Plan": "plans",
    "Precond": "preconditioners",
    "Sampler": "samplers",
    "Shared": "conditions",
    "State": "driver",
    "TooManyEvaluations": "driver",
    "UnknownName": "names",
    "alphas_cumprod": "betas",
    "certify": "certificates",
    "drive": "driver",
    "guide": "guidance",
    "invert": "inversion",
    "load": "models",
    "plan": "plans",
    "precond": "preconditioners",
    "run": "sampling",
    "sample": "sampling",
    "schedule": "schedules",
    "wrap": "wrapping",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__", "compat", "eval"]


if not TYPE_CHECKING:  # or every name would be known to type checkers, as Any

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = getattr(import_module(f"kdiff.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        if name.startswith("_") or find_spec(f"kdiff.{name}") is None:
            raise AttributeError(f"module 'kdiff' has no attribute {name!r}")
        return import_module(f"kdiff.{name}")
