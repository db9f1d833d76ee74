"""kdiff against the schedulers of the installed diffusers, run side by side on one exact model.

docs/parity.md says what agrees and what does not. The places where the definitions differ have
their own tests here, which assert the difference.
"""

import math
import sys
from itertools import pairwise
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.betas import sigmas_of
from kdiff.schedules import Range

# numpy 2 about torch tensors in diffusers' own numpy calls
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODEL = GaussianMixture(
    torch.tensor([[1.0, -0.5, 0.25], [-0.75, 0.5, 1.0], [0.5, 1.25, -1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5, 0.1], dtype=torch.float64),
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
START = torch.tensor([[0.6, -1.1, 0.9], [-1.4, 0.2, -0.3]], dtype=torch.float64)
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TOLERANCE = 1e-12  # with diffusers' arithmetic in float64; up to 9e-15 measured
AS_INSTALLED = 1e-6  # in diffusers' own float32; up to 2.2e-7 measured


class Wide:
    """A module whose float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


@pytest.fixture
def make(monkeypatch):
    """Makes diffusers schedulers with the timesteps set, that compute in float64 (they cast their
    tables, and some the sample in each step, to float32) and draw the noises of `draws`."""

    def build(name, steps, wide=True, **config):
        kind = getattr(diffusers, name)
        module, noise = sys.modules[kind.__module__], draws()
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noise), raising=False)
        for numbers in (torch, np) if wide else ():
            monkeypatch.setattr(module, numbers.__name__.replace("numpy", "np"), Wide(numbers))
        scheduler = kind(**({} if "IPNDM" in name else BETAS) | config)
        scheduler.set_timesteps(steps)
        return scheduler

    return build


def draws():
    """The same noises in the same order for both sides."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(START.shape, generator=generator, dtype=torch.float64)


def table(scheduler):
    """The sigma of each training timestep."""
    return sigmas_of(scheduler.alphas_cumprod.double().tolist())


def grid(scheduler):
    """The scheduler's own sigmas, each once (second-order schedulers list them twice)."""
    return list(dict.fromkeys(scheduler.sigmas.tolist()))


def sigma_now(scheduler, t):
    """The noise level at which the scheduler's next evaluation is, without rounding it to t."""
    if not hasattr(scheduler, "sigmas"):
        return table(scheduler)[int(t)]
    i = scheduler.step_index or 0
    if not getattr(scheduler, "state_in_first_order", True) and "KDPM2" in type(scheduler).__name__:
        ancestral = "Ancestral" in type(scheduler).__name__
        return float(scheduler.sigmas_interpol[i - 1 if ancestral else i])
    return float(scheduler.sigmas[i])


def diffusers_sample(scheduler, sigmas, prediction="eps", **step_options):
    """The scheduler's result in the variance-exploding frame, and the network it runs: `eps`, or
    `v`, of the exact denoiser."""
    preserving = isinstance(scheduler.init_noise_sigma, float)  # x_0 + sigma n is divided by scale
    scale = [math.hypot(1, sigma) if preserving else 1 for sigma in (sigmas[0], sigmas[-1])]
    x = sigmas[0] * START / scale[0]
    for t in scheduler.timesteps:
        z = scheduler.scale_model_input(x, t)
        sigma = sigma_now(scheduler, t)
        z = z * math.hypot(1, sigma)
        d = MODEL(z, sigma)
        output = (z - d) / sigma
        if prediction == "v":  # v = alpha eps - (alpha sigma) x_0
            output = (output - sigma * d) / math.hypot(1, sigma)
        x = scheduler.step(output, t, x, **step_options).prev_sample
    return x * scale[1]


def kdiff_sample(name, sigmas, **options):
    noise = draws()
    source = SimpleNamespace(white=lambda s, t: next(noise), brownian=lambda s, t: next(noise))
    plan = kdiff.plan(sampler=name, sigmas=sigmas, options=options)
    *_, last = kdiff.drive(MODEL, plan, plan.sigmas[0] * START, source)
    return last.x


def distance(result, expected):
    """The largest difference, relative to the largest component."""
    return float((result - expected).abs().max() / expected.abs().max())


def case(*args):
    """One parameter set, named after its values."""
    words = (
        ",".join(f"{k}={v}" for k, v in arg.items()) if isinstance(arg, dict) else str(arg)
        for arg in args
    )
    return pytest.param(*args, id="-".join(filter(None, words)))


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


def discrete_grid(scheduler, name, steps, final):
    return kdiff.schedule(name, steps, span(scheduler), final=final)


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


def span(scheduler):
    sigmas = table(scheduler)
    return Range(sigmas[0], sigmas[-1], sigmas)


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
    """As published it lacks a factor 2; and diffusers' default warms up with the midpoint rule."""
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
