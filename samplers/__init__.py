"""The sampler zoo: coroutines that ask for denoised images, and the registry that finds them."""

from kdiff.samplers import adams, euler, exponential, two_stage  # noqa: F401  (they register)
from kdiff.samplers.registry import (
    REGISTRY,
    Option,
    Resolved,
    Sampler,
    UnknownName,
    resolve,
    sampler,
)

__all__ = ["REGISTRY", "Option", "Resolved", "Sampler", "UnknownName", "resolve", "sampler"]
