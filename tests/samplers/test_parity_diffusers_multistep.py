"""SA-Solver, DPM-Solver on eps, UniPC of order 4 and 5, and the EDM schedulers, side by side with
the installed diffusers."""

import math

import pytest

from diffusers_parity import MODEL, START, TOLERANCE, diffusers_sample, distance, grid, kdiff_sample

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EVERYWHERE = {"tau_min": 0.0, "tau_max": 1000.0}


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 1), (2, 2), (3, 4), (3, 2)])
def test_sa_solver(predictor, corrector, lower, tau, make):
    orders = {"predictor_order": predictor, "corrector_order": corrector}
    scheduler = make(
        "SASolverScheduler", 10, tau_func=lambda t: tau, lower_order_final=lower, **orders
    )
    theirs = diffusers_sample(scheduler, grid(scheduler))
    options = {"tau": tau, "simple_order_2": True, "lower_order_final": lower} | EVERYWHERE
    ours = kdiff_sample("sa_solver", grid(scheduler), **orders, **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
def test_dpm_solver_on_eps(order, kind, make):
    scheduler = make(
        "DPMSolverMultistepScheduler",
        10,
        algorithm_type="dpmsolver",
        solver_order=order,
        solver_type=kind,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    theirs = diffusers_sample(scheduler, grid(scheduler))
    options = {"order": order, "solver_type": kind, "as_published": True}
    ours = kdiff_sample("dpm_solver_multistep", grid(scheduler), **options)
    assert distance(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("order", [4, 5])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_of_high_order(order, variant, make):
    scheduler = make(
        "UniPCMultistepScheduler",
        10,
        solver_order=order,
        solver_type=variant,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    theirs = diffusers_sample(scheduler, grid(scheduler))
    ours = kdiff_sample("unipc", grid(scheduler), order=order, variant=variant)
    assert distance(ours, theirs) < TOLERANCE


def edm_sample(scheduler):
    """Their network's output, for which D = c_skip x + c_out F is the exact denoiser."""
    x = float(scheduler.sigmas[0]) * START
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, t)
        sigma = float(scheduler.sigmas[i])
        data = scheduler.config.sigma_data
        skip = data**2 / (sigma**2 + data**2)
        out = sigma * data / math.hypot(sigma, data)
        output = (MODEL(x, sigma) - skip * x) / out
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm_euler(schedule, make):
    scheduler = make("EDMEulerScheduler", 10, sigma_schedule=schedule)
    ours = kdiff_sample("euler", grid(scheduler))
    assert distance(ours, edm_sample(scheduler)) < TOLERANCE


def edm_scheduler(make, final, **config):
    return make(
        "EDMDPMSolverMultistepScheduler",
        10,
        final_sigmas_type=final,
        lower_order_final=False,
        euler_at_final=final == "zero",
        **config,
    )


SOLVERS = [
    ({"solver_type": "midpoint"}, "dpmpp_2m", {"solver_type": "midpoint"}),
    ({"solver_type": "heun"}, "dpmpp_2m", {"solver_type": "heun"}),
    ({"solver_type": "heun", "solver_order": 3}, "dpmpp_3m", {"as_published": True}),
]


@pytest.mark.parametrize(("config", "name", "options"), SOLVERS, ids=str)
def test_edm_dpm_solver_to_zero(config, name, options, make):
    scheduler = edm_scheduler(make, "zero", **config)
    ours = kdiff_sample(name, grid(scheduler), **options)
    assert distance(ours, edm_sample(scheduler)) < TOLERANCE


@pytest.mark.parametrize(("config", "name", "options"), SOLVERS, ids=str)
def test_edm_dpm_solver_to_sigma_min_ends_in_an_empty_step(config, name, options, make):
    """The last sigma is there twice. In float64 the step between is as long as a rounding error;
    in float32, as installed, it is empty, and the third order divides by its length."""
    scheduler = edm_scheduler(make, "sigma_min", **config)
    *sigmas, last = scheduler.sigmas.tolist()
    assert last == pytest.approx(sigmas[-1], rel=1e-6)
    ours = kdiff_sample(name, sigmas, **options)
    assert distance(ours, edm_sample(scheduler)) < 1e-11


def test_edm_dpm_solver_of_order_3_is_nan_as_installed(make):
    scheduler = edm_scheduler(make, "sigma_min", solver_order=3, wide=False)
    assert not edm_sample(scheduler).isfinite().any()
