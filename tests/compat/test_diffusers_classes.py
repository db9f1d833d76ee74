"""KDiffScheduler made from the configuration of one scheduler class after another, against that
class, in a loop like a pipeline's. Theirs compute in float64 and draw the noise of ours."""

import sys
from functools import partial
from importlib import import_module
from itertools import pairwise
from types import ModuleType

import diffusers
import numpy as np
import pytest
import torch

import kdiff
from diffusers_parity import Wide, case
from kdiff.compat.diffusers import KDiffScheduler
from scheduler_grids import BETAS, close, loop, normal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
diffusers.utils.logging.set_verbosity_error()

SEEDS, SHAPE = [3, 4], (3, 4, 4)
Z = normal(2, *SHAPE).double()


@pytest.fixture
def make(monkeypatch):
    def build(name, **config):
        if name.startswith("Cosine"):  # it imports torchsde for noise that is replaced here
            stub = ModuleType("torchsde")
            monkeypatch.setitem(sys.modules, "torchsde", sys.modules.get("torchsde", stub))
            import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
            module = import_module("diffusers.schedulers.scheduling_cosine_dpmsolver_multistep")
        else:
            module = sys.modules[getattr(diffusers, name).__module__]
        kind = getattr(module, name)
        for numbers, there in ((torch, "torch"), (np, "np")):
            if hasattr(module, there):
                monkeypatch.setattr(module, there, Wide(numbers))
        return kind(**config)

    return build


def draws(plan):
    """The noise of each step of ours."""
    source = getattr(kdiff.Noise(SEEDS, SHAPE, torch.float64), plan.sampler.noise or "white")
    yield from (source(s, t) for s, t in pairwise(plan.sigmas))


def same(monkeypatch, theirs, ours, frame=1.0):
    noise = draws(ours.plan)
    module = sys.modules[type(theirs).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noise), raising=False)
    if hasattr(theirs, "noise_sampler"):
        theirs.noise_sampler = lambda s, t: next(noise)
    end = ours.plan.sigmas[-1]  # where theirs is scaled for the network, and ours is the result
    close(loop(ours, Z), loop(theirs, frame * Z) / (ours.precond(end).c_in if end else 1.0))


def made_of(theirs, sampler, options, **chosen):
    return KDiffScheduler.from_config(
        theirs, sampler=sampler, options=options, seeds=SEEDS, **chosen
    )


# --- EDM -----------------------------------------------------------------------------------------


LOWER = {"lower_order_final": True}
EDM = [
    ("EDMEulerScheduler", "euler", {}),
    ("EDMEulerScheduler", "EDMEulerScheduler", {}),
    ("EDMDPMSolverMultistepScheduler", "dpmpp_2m", LOWER),
    ("EDMDPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler", {}),
    ("CosineDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler", {}),
]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sigma_schedule": "exponential", "sigma_data": 0.8},
        {"sigma_schedule": "karras", "rho": 3.0, "sigma_min": 0.01, "sigma_max": 20.0},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "epsilon"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("kind", "sampler", "options"), EDM)
@pytest.mark.parametrize("steps", [2, 6])
def test_edm(kind, sampler, options, config, steps, make, monkeypatch):
    theirs = make(kind, **config)
    ours = made_of(theirs, sampler, options)
    theirs.set_timesteps(steps)
    ours.set_timesteps(steps)
    assert ours.timesteps.tolist() == pytest.approx(theirs.timesteps.tolist(), abs=1e-5)
    assert ours.sigmas.tolist() == pytest.approx(theirs.sigmas.tolist(), rel=1e-5)
    sigma = float(theirs.sigmas[0])
    same(monkeypatch, theirs, ours, 1 / ours.precond(sigma).c_in)


# --- betas ---------------------------------------------------------------------------------------


TRAILING = {"timestep_spacing": "trailing"}
CLASSES = [
    case("DDPMScheduler", {"variance_type": "fixed_small"}, "ddim", {"eta": 1.0}),
    case("DDPMScheduler", {"variance_type": "fixed_small_log"}, "DDPMScheduler", {}),
    case("DDPMScheduler", {"variance_type": "fixed_large"}, "ddim", {"variance": "sigma_hat"}),
    case("DDPMParallelScheduler", {}, "DDPMParallelScheduler", {}),
    case(
        "DDPMParallelScheduler", {"variance_type": "fixed_large"}, "ddim", {"variance": "sigma_hat"}
    ),
    case("DDIMParallelScheduler", {}, "ddim", {}),
    case("LCMScheduler", {}, "LCMScheduler", {}),
    case(
        "DPMSolverSinglestepScheduler",
        {"solver_order": 3, "final_sigmas_type": "zero", **LOWER},
        "dpmpp_singlestep",
        {"as_published": True, **LOWER},
    ),
    case(
        "UniPCMultistepScheduler",
        {"solver_order": 4, **TRAILING},
        "UniPCMultistepScheduler",
        {"order": 4},
    ),
    case(
        "UniPCMultistepScheduler",
        {"solver_order": 5, **TRAILING},
        "UniPCMultistepScheduler",
        {"order": 5},
    ),
]


@pytest.mark.parametrize(("kind", "config", "sampler", "options"), CLASSES)
def test_betas(kind, config, sampler, options, make, monkeypatch):
    """On their own timesteps; theirs, in float64, have other betas in the eighth digit."""
    plain = {"clip_sample": False} if kind.startswith("DD") else {}
    theirs = make(kind, **BETAS, **plain, **config)
    ours = made_of(theirs, sampler, options)
    theirs.set_timesteps(11)
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    same(monkeypatch, theirs, ours)


# --- flows ---------------------------------------------------------------------------------------


FLOWS = [
    case("FlowMatchEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    case("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"),
    case("FlowMatchHeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    case("FlowMatchLCMScheduler", "FlowMatchLCMScheduler"),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("kind", "sampler"), FLOWS)
def test_flows(kind, sampler, shift, dynamic, make, monkeypatch):
    if dynamic and "Heun" in kind:
        pytest.skip("it has no shift that depends on the size")
    config, asked = {"shift": shift}, {}
    if dynamic:
        config["use_dynamic_shifting"], asked["mu"] = True, 0.9
    if kind == "FlowMatchEulerDiscreteScheduler" and "LCM" in sampler:
        config["stochastic_sampling"] = True
    theirs = make(kind, **config)
    ours = made_of(theirs, sampler, {})
    theirs.set_timesteps(6, **asked)
    ours.set_timesteps(6, **asked)
    if "stochastic_sampling" in config:
        noise = draws(ours.plan)
        monkeypatch.setattr(torch, "randn_like", lambda x: next(noise))
    same(monkeypatch, theirs, ours)


def test_ltx(make, monkeypatch):
    """Its configuration has no shift, so that `from_config` must be told of it."""
    theirs = make("LTXEulerAncestralRFScheduler")
    with pytest.raises(ValueError, match="neither betas nor"):
        KDiffScheduler.from_config(theirs)
    ours = made_of(theirs, "LTXEulerAncestralRFScheduler", {}, shift=1.0)
    theirs.set_timesteps(6)
    ours.set_timesteps(6)
    same(monkeypatch, theirs, ours)


# --- what is decided elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_sa_solver(tau, make, monkeypatch):
    """With one tau for all steps: where it is an interval's, they look at where a step begins, and
    kdiff at where it ends. They end at timestep 0, with a sample scaled for it."""
    theirs = make("SASolverScheduler", **BETAS, tau_func=lambda t: tau)
    options = {"tau": tau, "tau_min": 0, "tau_max": 1e9}
    config = {**theirs.config, "tau_func": None, "_class_name": "SASolverScheduler"}
    ours = made_of(config, "SASolverScheduler", options)
    theirs.set_timesteps(8)
    ours.set_timesteps(sigmas=theirs.sigmas.tolist())
    same(monkeypatch, theirs, ours)


def test_tcd(make, monkeypatch):
    """Without noise: with it, they round the timestep that a jump goes to. They end at timestep
    0."""
    theirs = make("TCDScheduler", **BETAS)
    theirs.step = partial(theirs.step, eta=0.0)
    ours = made_of(theirs, "tcd", {"gamma": 0.0})
    theirs.set_timesteps(5)
    levels = [ours.precond.sigmas[t] for t in theirs.timesteps.tolist()]
    ours.set_timesteps(sigmas=[*levels, ours.precond.sigma_min])
    same(monkeypatch, theirs, ours)
