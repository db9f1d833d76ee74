"""The sampler zoo: coroutines that ask for denoised images, and the registry that finds them."""

# isort: off
# These register their samplers, in the order in which `kdiff list` shows them.
import kdiff.samplers.euler
import kdiff.samplers.two_stage
import kdiff.samplers.heunpp
import kdiff.samplers.runge_kutta
import kdiff.samplers.exponential
import kdiff.samplers.unipc
import kdiff.samplers.adams
import kdiff.samplers.ipndm
import kdiff.samplers.velocity
import kdiff.samplers.gradient_estimation
import kdiff.samplers.stork
import kdiff.samplers.scire
import kdiff.samplers.pfdiff
import kdiff.samplers.sa_solver
import kdiff.samplers.exponential_rk
import kdiff.samplers.flow_ancestral
import kdiff.samplers.seeds
import kdiff.samplers.er_sde
import kdiff.samplers.reverse_sde
import kdiff.samplers.langevin
import kdiff.samplers.restart
import kdiff.samplers.singlestep
import kdiff.samplers.dpm_adaptive
import kdiff.samplers.rk_adaptive
import kdiff.samplers.consistency
import kdiff.samplers.parallel
import kdiff.samplers.analytic_dpm  # noqa: F401

# isort: on
from kdiff.names import UnknownName
from kdiff.options import Option
from kdiff.samplers.contract import Ask, Coroutine, Noise, Variance, Walk
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
    "Variance",
    "Walk",
    "resolve",
    "sampler",
]
