"""Places where the definitions of diffusers and of kdiff differ: the tests assert the difference.

docs/parity.md lists them.
"""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest

import kdiff
from diffusers_parity import (
    MODEL,
    START,
    TOLERANCE,
    diffusers_sample,
    discrete_grid,
    distance,
    draws,
    grid,
    kdiff_sample,
    table,
)

# numpy 2 about torch tensors in diffusers' own numpy calls
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(("steps", "lowered"), [(14, True), (15, False)])
def test_lower_order_final_ends_at_15_steps(steps, lowered, make):
    """diffusers ignores lower_order_final from 15 steps on; kdiff never does."""
    scheduler = make(
        "DPMSolverMultistepScheduler", steps, lower_order_final=True, final_sigmas_type="sigma_min"
    )
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = {
        option: distance(
            kdiff_sample("dpmpp_2m", grid(scheduler), lower_order_final=option), theirs
        )
        for option in (True, False)
    }
    assert ours[lowered] < TOLERANCE
    assert ours[not lowered] > 1e-6


def test_third_order(make):
    """The published form lacks a factor 2, and diffusers' default warms up by the midpoint rule."""
    results = {}
    for solver_type in ("heun", "midpoint"):
        scheduler = make("DPMSolverMultistepScheduler", 10, solver_order=3, solver_type=solver_type)
        results[solver_type] = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample("dpmpp_3m", grid(scheduler), as_published=True, lower_order_final=True)
    assert distance(ours, results["heun"]) < TOLERANCE
    assert distance(ours, results["midpoint"]) > 1e-3
    corrected = kdiff_sample("dpmpp_3m", grid(scheduler), lower_order_final=True)
    assert distance(corrected, results["heun"]) > 1e-4


def test_third_order_sde_has_a_wrong_sign(make):
    """diffusers subtracts 1/2 where phi_3 adds it: off by the second difference D2 itself, which
    no refinement of the steps removes. Shown on the third of three steps."""
    scheduler = make(
        "DPMSolverMultistepScheduler",
        3,
        algorithm_type="sde-dpmsolver++",
        solver_order=3,
        solver_type="heun",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    sigmas = grid(scheduler)
    theirs = diffusers_sample(scheduler, sigmas)
    plan = kdiff.plan(
        sampler="dpmpp_3m_sde", sigmas=sigmas, options={"as_published": True, "eta": 1.0}
    )
    noise = draws()
    source = SimpleNamespace(brownian=lambda s, t: next(noise))
    *states, last = kdiff.drive(MODEL, plan, sigmas[0] * START, source)
    d_2, d_1, d_0 = (state.denoised for state in states)
    h_1, h_0, h = (math.log(s / t) for s, t in pairwise(sigmas))
    slope_0, slope_1 = (d_0 - d_1) * h / h_0, (d_1 - d_2) * h / h_1
    second = (slope_0 - slope_1) * h / (h_0 + h_1)
    assert distance(last.x - second, theirs) < TOLERANCE


def test_pndm_of_v(make):
    """PNDMScheduler combines v predictions, of different timesteps, as they are; a kdiff sampler
    sees the denoised alone, so that the parametrisation of a network does not matter."""
    results = {}
    for prediction, name in (("eps", "epsilon"), ("v", "v_prediction")):
        scheduler = make(
            "PNDMScheduler", 10, skip_prk_steps=True, set_alpha_to_one=True, prediction_type=name
        )
        sigmas = discrete_grid(scheduler, "leading", 10, "zero")
        results[prediction] = diffusers_sample(scheduler, sigmas, prediction)
    ours = kdiff_sample("plms", sigmas)
    assert distance(ours, results["eps"]) < TOLERANCE
    assert distance(ours, results["v"]) > 1e-3


@pytest.mark.parametrize(
    "config",
    [{"solver_type": "bh1"}, {"solver_type": "bh2", "lower_order_final": False}],
    ids=str,
)
def test_unipc_to_zero(config, make):
    """UniPCMultistepScheduler ends in NaN or infinity; kdiff's step to zero is of first order."""
    scheduler = make("UniPCMultistepScheduler", 10, **config, final_sigmas_type="zero")
    assert not diffusers_sample(scheduler, grid(scheduler)).isfinite().any()
    ours = kdiff_sample("unipc", grid(scheduler), variant=config["solver_type"])
    assert ours.isfinite().all()


def test_ddim_linspace_steps_do_not_join(make):
    """DDIMScheduler steps to t - 1000 // steps, whatever its next timestep is."""
    scheduler = make("DDIMScheduler", 10, clip_sample=False, timestep_spacing="linspace")
    sigmas, t = table(scheduler), scheduler.timesteps.tolist()
    assert t[:2] == [999, 888]
    x = sigmas[999] * START
    eps = (x - MODEL(x, sigmas[999])) / sigmas[999]
    theirs = scheduler.step(eps, 999, x / math.hypot(1, sigmas[999])).prev_sample
    ours = kdiff_sample("ddim", [sigmas[999], sigmas[899]])
    assert distance(ours / math.hypot(1, sigmas[899]), theirs) < TOLERANCE


def test_euler_churn(make):
    """EulerDiscreteScheduler adds the noise in `step`, after the network has been evaluated;
    Karras et al. 2022, algorithm 2, evaluates at the raised noise level."""
    churn = {"s_churn": 3.0, "s_noise": 1.1}
    scheduler = make("EulerDiscreteScheduler", 10)
    theirs = diffusers_sample(scheduler, grid(scheduler), **churn)
    ours = kdiff_sample("euler", grid(scheduler), S_churn=3.0, S_noise=1.1)
    assert distance(ours, theirs) > 1e-2
