"""kdiff's noise levels against those of the schedulers of the installed diffusers."""

import diffusers
import numpy as np
import pytest

import kdiff
from diffusers_parity import TOLERANCE, case, grid, span, table

# numpy 2 about torch tensors in diffusers' own numpy calls
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# --- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_alphas_cumprod(betas, make):
    scheduler = make("DDIMScheduler", 10, beta_schedule=betas)
    ours = kdiff.alphas_cumprod(betas, start=1e-4, end=0.02)
    assert scheduler.alphas_cumprod.tolist() == pytest.approx(ours, rel=TOLERANCE, abs=0)


def test_cosine_alphas_cumprod():
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    ours = kdiff.alphas_cumprod("cosine")
    # float32 betas near 0.999 leave few digits of 1 - beta in the last of 1000 factors
    assert scheduler.alphas_cumprod.tolist() == pytest.approx(ours, rel=2e-4, abs=0)
    assert scheduler.alphas_cumprod[:900].tolist() == pytest.approx(ours[:900], rel=1e-5, abs=0)


# linspace: 999 / 9 and 999 / 27 are whole, so that no timestep is rounded or between two sigmas.
@pytest.mark.parametrize(
    ("scheduler", "steps", "config", "name", "final"),
    [
        case("EulerDiscreteScheduler", 10, {"timestep_spacing": "linspace"}, "linspace", "zero"),
        case("EulerDiscreteScheduler", 28, {"timestep_spacing": "linspace"}, "linspace", "zero"),
        case("EulerDiscreteScheduler", 7, {"timestep_spacing": "leading"}, "leading", "zero"),
        case("EulerDiscreteScheduler", 7, {"timestep_spacing": "trailing"}, "trailing", "zero"),
        case(
            "EulerDiscreteScheduler",
            7,
            {"timestep_spacing": "leading", "steps_offset": 1, "final_sigmas_type": "sigma_min"},
            "leading",
            "sigma_min",
        ),
        case("EulerDiscreteScheduler", 10, {"use_karras_sigmas": True}, "karras", "zero"),
        case("EulerDiscreteScheduler", 10, {"use_exponential_sigmas": True}, "exponential", "zero"),
        case("DPMSolverMultistepScheduler", 10, {"use_karras_sigmas": True}, "karras", "zero"),
        case("DPMSolverMultistepScheduler", 10, {"use_lu_lambdas": True}, "exponential", "zero"),
        case(
            "DPMSolverMultistepScheduler",
            7,
            {"timestep_spacing": "trailing"},
            "trailing",
            "zero",
        ),
        *(
            case(
                name,
                steps,
                {"timestep_spacing": spacing, "final_sigmas_type": "sigma_min"},
                spacing,
                "sigma_min",
            )
            for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
            for spacing, steps in (("linspace", 9), ("linspace", 27), ("trailing", 7))
        ),
        case("DEISMultistepScheduler", 9, {}, "linspace", "sigma_min"),
    ],
)
def test_grid(scheduler, steps, config, name, final, make):
    scheduler = make(scheduler, steps, **config)
    ours = kdiff.schedule(name, steps, span(scheduler), final=final)
    assert grid(scheduler) == pytest.approx(ours, rel=TOLERANCE, abs=0)


@pytest.mark.parametrize(
    ("scheduler", "rounds"),
    [("EulerDiscreteScheduler", False), ("DPMSolverMultistepScheduler", True)],
)
def test_timestep_of_sigma(scheduler, rounds, make):
    """Between two timesteps, a discrete network gets the same time as in diffusers' Euler family.
    The multistep family rounds it, so the network gets another noise level."""
    scheduler = make(scheduler, 10, use_karras_sigmas=True)
    clock = kdiff.precond("eps", alphas_cumprod=scheduler.alphas_cumprod.tolist())
    ours = np.array([clock(sigma).c_noise for sigma in grid(scheduler)[:-1]])
    if rounds:
        assert np.abs(ours - ours.round()).max() > 0.1
        ours = ours.round()
    assert scheduler.timesteps.tolist() == pytest.approx(ours, rel=0, abs=1e-9)


# --- differences ---------------------------------------------------------------------------------


def test_linspace_between_timesteps(make):
    """diffusers interpolates sigma between timesteps linearly in sigma, kdiff in log sigma."""
    scheduler = make("EulerDiscreteScheduler", 20)
    t, sigmas = scheduler.timesteps.numpy(), table(scheduler)
    assert grid(scheduler)[:-1] == pytest.approx(np.interp(t, range(1000), sigmas), rel=TOLERANCE)
    ours = kdiff.schedule("linspace", 20, span(scheduler))
    logs = np.interp(t, range(1000), np.log(sigmas))
    assert ours[:-1] == pytest.approx(np.exp(logs), rel=TOLERANCE)
    assert ours != pytest.approx(grid(scheduler), rel=1e-5)


def test_multistep_linspace_and_leading(make):
    """DPM-Solver's grids are for steps + 1 points, the last of which final_sigmas_type replaces."""
    last_left_out = make("DPMSolverMultistepScheduler", 9)
    ours = kdiff.schedule("linspace", 9, span(last_left_out), final="sigma_min")
    assert grid(last_left_out) == pytest.approx([*ours[:-1], 0.0], rel=TOLERANCE)
    leading = make("DPMSolverMultistepScheduler", 10, timestep_spacing="leading")
    assert leading.timesteps.tolist() == [90 * i for i in range(10, 0, -1)]  # 1000 // 11


@pytest.mark.parametrize(
    "scheduler",
    ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"],
)
def test_karras_to_sigma_min_ends_in_an_empty_step(scheduler, make):
    """diffusers repeats the last sigma; kdiff's grid has steps + 1 different ones."""
    ends = {} if scheduler.startswith("DEIS") else {"final_sigmas_type": "sigma_min"}
    scheduler = make(scheduler, 10, use_karras_sigmas=True, **ends)
    *sigmas, last = scheduler.sigmas.tolist()
    assert last == pytest.approx(sigmas[-1], rel=TOLERANCE)
    assert sigmas == pytest.approx(
        kdiff.schedule("karras", 10, span(scheduler))[:-1], rel=TOLERANCE
    )


def test_karras_range_follows_the_spacing(make):
    """The Euler family takes the range of Karras sigmas from its spaced timesteps, 99 to 999 here;
    kdiff takes the model's."""
    scheduler = make(
        "EulerDiscreteScheduler", 10, use_karras_sigmas=True, timestep_spacing="trailing"
    )
    ends = {"sigma_min": table(scheduler)[99], "sigma_max": table(scheduler)[999]}
    assert grid(scheduler) == pytest.approx(kdiff.schedule("karras", 10, **ends), rel=TOLERANCE)
