"""The sampler zoo: coroutines that ask for denoised images, and the registry that finds them."""

# isort: off
# These register their samplers, in the order in which `kdiff list` shows them.
import kdiff.samplers.euler
import kdiff.samplers.two_stage
import kdiff.samplers.exponential
import kdiff.samplers.adams
import kdiff.samplers.dpm_adaptive
import kdiff.samplers.rk_adaptive
import kdiff.samplers.consistency
import kdiff.samplers.parallel  # noqa: F401

# isort: on
from kdiff.names import UnknownName
from kdiff.options import Option
from kdiff.samplers.contract import Ask, Coroutine, Noise, Walk
from kdiff.samplers.registry import REGISTRY, Resolved, Sampler, resolve, sampler

__all__ = [
    "REGISTRY",
    "Ask",
    "Coroutine",
    "Noise",
    "Option",
    "Resolved",
    "Sampler",
    "UnknownName",
    "Walk",
    "resolve",
    "sampler",
]
