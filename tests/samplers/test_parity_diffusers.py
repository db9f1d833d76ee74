"""kdiff against the schedulers of the installed diffusers, run side by side on one exact model.

docs/parity.md says what agrees and what does not.
"""

import math

import pytest
import torch

import kdiff
from diffusers_parity import (
    TOLERANCE,
    case,
    diffusers_sample,
    discrete_grid,
    distance,
    grid,
    kdiff_sample,
)

# numpy 2 about torch tensors in diffusers' own numpy calls
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


AS_INSTALLED = 1e-6  # in diffusers' own float32; up to 2.2e-7 measured


# --- solvers, on diffusers' own sigmas -----------------------------------------------------------


DISCRETE = [{"timestep_spacing": spacing} for spacing in ("linspace", "leading", "trailing")]
SPACED = [*DISCRETE, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
FINALS = ("zero", "sigma_min")


@pytest.mark.parametrize("config", SPACED, ids=str)
@pytest.mark.parametrize(
    ("scheduler", "step_options", "sampler", "options"),
    [
        case("EulerDiscreteScheduler", {}, "euler", {}),
        case("HeunDiscreteScheduler", {}, "heun", {}),
        case("KDPM2DiscreteScheduler", {}, "dpm_2", {}),
        case("KDPM2AncestralDiscreteScheduler", {}, "dpm_2_ancestral", {}),
        *(case("LMSDiscreteScheduler", {"order": k}, "lms", {"order": k}) for k in (1, 2, 3, 4)),
    ],
)
def test_k_diffusion_style(scheduler, step_options, sampler, options, config, make):
    scheduler = make(scheduler, 10, **config)
    theirs = diffusers_sample(scheduler, grid(scheduler), **step_options)
    ours = kdiff_sample(sampler, grid(scheduler), **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("config", DISCRETE, ids=str)
def test_euler_ancestral(config, make):
    scheduler = make("EulerAncestralDiscreteScheduler", 10, **config)
    theirs = diffusers_sample(scheduler, grid(scheduler))
    assert distance(kdiff_sample("euler_ancestral", grid(scheduler)), theirs) < TOLERANCE


MULTISTEP = [
    *(
        case(
            "DPMSolverMultistepScheduler",
            {"solver_order": 2, "solver_type": kind, "lower_order_final": lower},
            final,
            "dpmpp_2m",
            {"solver_type": kind, "lower_order_final": lower},
        )
        for kind in ("midpoint", "heun")
        for lower in (True, False)
        for final in FINALS
    ),
    *(
        case(
            "DPMSolverMultistepScheduler",
            {"solver_order": 3, "solver_type": "heun", "lower_order_final": lower},
            final,
            "dpmpp_3m",
            {"as_published": True, "lower_order_final": lower},
        )
        for lower in (True, False)
        for final in FINALS
    ),
    case(
        "DPMSolverMultistepScheduler",
        {"lower_order_final": False, "euler_at_final": True},
        "sigma_min",
        "dpmpp_2m",
        {"lower_order_final": True},
    ),
    *(
        case(
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_type": kind},
            "zero",
            "dpmpp_2m_sde",
            {"solver_type": kind},
        )
        for kind in ("midpoint", "heun")
    ),
    *(
        case(
            "UniPCMultistepScheduler",
            {"solver_order": order, "solver_type": variant, "lower_order_final": lower},
            "sigma_min",
            "unipc",
            {"order": order, "variant": variant, "lower_order_final": lower},
        )
        for order in (1, 2, 3)
        for variant in ("bh1", "bh2")
        for lower in (True, False)
    ),
    *(
        case(
            "UniPCMultistepScheduler",
            {"solver_order": order},
            "zero",
            "unipc",
            {"order": order, "variant": "bh2", "lower_order_final": True},
        )
        for order in (1, 2, 3)
    ),
    *(
        case(
            "DEISMultistepScheduler",
            {"solver_order": order, "lower_order_final": lower},
            None,
            "deis",
            {"order": order, "variable": "log_rho", "lower_order_final": lower},
        )
        for order in (1, 2, 3)
        for lower in (True, False)
    ),
]


@pytest.mark.parametrize("spacing", ("linspace", "leading", "trailing"))
@pytest.mark.parametrize(("scheduler", "config", "final", "sampler", "options"), MULTISTEP)
def test_multistep(scheduler, config, final, sampler, options, spacing, make):
    ends = {} if final is None else {"final_sigmas_type": final}  # DEIS knows sigma_min only
    scheduler = make(scheduler, 10, timestep_spacing=spacing, **config, **ends)
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample(sampler, grid(scheduler), **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("spacing", DISCRETE, ids=str)
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver(tau, lower, spacing, make):
    """With one tau everywhere: theirs is of where a step begins, kdiff's of where it ends."""
    config = {"tau_func": lambda t: tau, "lower_order_final": lower}
    scheduler = make("SASolverScheduler", 10, **spacing, **config)
    options = {"predictor_order": 2, "corrector_order": 2, "simple_order_2": True}
    options |= {"tau": tau, "tau_min": 0, "tau_max": 1e9, "lower_order_final": lower}
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample("sa_solver", grid(scheduler), **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas"])
def test_multistep_on_karras_sigmas(scheduler, spacing, make):
    sampler = {"D": "dpmpp_2m", "U": "unipc"}[scheduler[0]]
    options = {"order": 2, "lower_order_final": True} if sampler == "unipc" else {}
    scheduler = make(scheduler, 10, **{spacing: True}, final_sigmas_type="zero")
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample(sampler, grid(scheduler), **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("final", [0.0, 0.02])
def test_ipndm(final, make):
    """IPNDMScheduler's own grid starts at sigma = infinity, so it gets ours, as sigma * alpha."""
    sigmas = [*kdiff.schedule("karras", 10, sigma_min=0.05, sigma_max=40.0)[:-1], final]
    preserving = [sigma / math.hypot(1, sigma) for sigma in sigmas]
    scheduler = make("IPNDMScheduler", 10, trained_betas=preserving)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)  # for `sigma_now` alone
    theirs = diffusers_sample(scheduler, sigmas, prediction="v")
    assert distance(kdiff_sample("ipndm", sigmas), theirs) < TOLERANCE


# --- solvers on integer timesteps, on kdiff's grids ----------------------------------------------


# diffusers' settings, and kdiff's for the same timesteps
TIMESTEPS = [
    ({"timestep_spacing": "leading", "set_alpha_to_one": True}, ("leading", "zero")),
    (
        {"timestep_spacing": "leading", "set_alpha_to_one": False, "steps_offset": 1},
        ("leading", "sigma_min"),
    ),
    ({"timestep_spacing": "trailing", "set_alpha_to_one": True}, ("trailing", "zero")),
]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("config", "ours"), TIMESTEPS, ids=str)
def test_ddim(config, ours, eta, make):
    scheduler = make("DDIMScheduler", 10, clip_sample=False, **config)
    sigmas = discrete_grid(scheduler, ours[0], 10, ours[1])
    theirs = diffusers_sample(scheduler, sigmas, eta=eta)
    assert distance(kdiff_sample("ddim", sigmas, eta=eta), theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("variance_type", "options"),
    [case("fixed_small", {"eta": 1.0}), case("fixed_large", {"variance": "sigma_hat"})],
)
def test_ddpm(variance_type, options, make):
    scheduler = make("DDPMScheduler", 10, clip_sample=False, variance_type=variance_type)
    sigmas = discrete_grid(scheduler, "leading", 10, "zero")
    theirs = diffusers_sample(scheduler, sigmas)
    assert distance(kdiff_sample("ddim", sigmas, **options), theirs) < TOLERANCE


@pytest.mark.parametrize(("config", "ours"), TIMESTEPS, ids=str)
def test_plms(config, ours, make):
    scheduler = make("PNDMScheduler", 10, skip_prk_steps=True, **config)
    sigmas = discrete_grid(scheduler, ours[0], 10, ours[1])
    theirs = diffusers_sample(scheduler, sigmas)
    assert distance(kdiff_sample("plms", sigmas), theirs) < TOLERANCE


def test_singlestep(make):
    """DPMSolverSinglestepScheduler of order 2 evaluates at every second of its sigmas where 2S
    evaluates in the middle in log sigma: on an exponential grid these are the same."""
    scheduler = make("DPMSolverSinglestepScheduler", 11, use_exponential_sigmas=True)
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample("dpmpp_2s_ancestral", [*grid(scheduler)[::2], 0.0], eta=0.0)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        ("EulerDiscreteScheduler", "euler"),
        ("HeunDiscreteScheduler", "heun"),
        ("KDPM2AncestralDiscreteScheduler", "dpm_2_ancestral"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
    ],
)
def test_as_installed(scheduler, sampler, make):
    """With nothing made float64, only diffusers' own rounding comes in."""
    scheduler = make(scheduler, 10, wide=False)
    theirs = diffusers_sample(scheduler, grid(scheduler))
    assert distance(kdiff_sample(sampler, grid(scheduler)), theirs) < AS_INSTALLED
