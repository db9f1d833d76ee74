"""kdiff against k-diffusion 0.1.1.post1, through values that tools/make_k_diffusion_golden.py made
with it in float64. docs/parity.md says what agrees and what does not."""

import json
from functools import partial

import pytest
import torch

import kdiff
import places
from kdiff.analytic import GaussianMixture
from kdiff.preconditioners import vp_sigma
from kdiff.samplers import Walk

GOLDEN = json.loads((places.GOLDEN / "k_diffusion.json").read_text())
tensor = partial(torch.tensor, dtype=torch.float64)
MODEL = GaussianMixture(**{key: tensor(value) for key, value in GOLDEN["model"].items()})
START = tensor(GOLDEN["start"])
# Only rounding may differ: up to 7e-15 measured, with two kinds of libm and torch between them.
TOLERANCE = 1e-13

COMPARED = [case for case in GOLDEN["samples"] if case["result"] is not None]
CRASHED = [case for case in GOLDEN["samples"] if case["result"] is None]


def label(case: dict) -> str:
    settings = case.get("options", case.get("settings"))
    chosen = ",".join(f"{key}={value}" for key, value in settings.items())
    return f"{case['name']}({chosen})-{case.get('grid', case.get('steps'))}"


def pseudo_noise(s: float, t: float) -> torch.Tensor:
    """The stand-in for noise that the golden values were made with."""
    log_s, log_t = tensor([s, t]).log()
    index = torch.arange(1, START.numel() + 1, dtype=torch.float64)
    return torch.sin(index * (1 + log_s) + log_t / index).view_as(START)


def drive(case: dict, **options) -> torch.Tensor:
    """What kdiff's sampler of that name returns on the case's grid."""
    sampler = kdiff.samplers.resolve(case["name"]).sampler
    spelled = {name.lower(): name for name in sampler.options}  # s_churn is S_churn here
    options |= {spelled[name]: value for name, value in case["options"].items()}
    churns = "S_churn" in sampler.options
    # k-diffusion's churn noise has no interval; the step's own sigma stands in for it.
    noise = (lambda s, t: pseudo_noise(s, s)) if churns else pseudo_noise
    sigmas = GOLDEN["grids"][case["grid"]]
    walk = Walk(sampler.start(sigmas[0] * START, sigmas, noise, options))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    return walk.result


def distance(result: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest component."""
    return float((result - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", COMPARED, ids=label)
def test_sampler(case):
    third = {"as_published": True} if case["name"] == "sample_dpmpp_3m_sde" else {}
    assert distance(drive(case, **third), tensor(case["result"])) < TOLERANCE


@pytest.mark.parametrize("case", CRASHED, ids=label)
def test_one_step_where_k_diffusion_crashes(case):
    """k-diffusion's 2M and 3M SDE raise UnboundLocalError; one step to zero is the denoised."""
    sigma = GOLDEN["grids"][case["grid"]][0]
    assert distance(drive(case), MODEL(sigma * START, sigma)) < TOLERANCE


@pytest.mark.parametrize(
    "case",
    [c for c in COMPARED if c["name"] == "sample_dpmpp_3m_sde" and c["grid"] != "1, zero"],
    ids=label,
)
def test_third_order_is_corrected_by_default(case):
    """As published, the second divided difference lacks its factor 2 (docs/parity.md)."""
    assert distance(drive(case), tensor(case["result"])) > 1e-3


@pytest.mark.parametrize("case", GOLDEN["schedules"], ids=label)
def test_schedule(case):
    settings = dict(case["settings"])
    if case["name"] == "vp":  # k-diffusion gives the ends as times, 1 and eps_s
        betas = {key: settings[key] for key in ("beta_d", "beta_min") if key in settings}
        ends = {"sigma_max": 1.0, "sigma_min": settings.pop("eps_s", 1e-3)}
        settings |= {key: vp_sigma(t, **betas) for key, t in ends.items()}
    sigmas = kdiff.schedule(case["name"], case["steps"], **settings)
    assert sigmas[-1] == case["sigmas"][-1] == 0
    # 3e-13 is the worst: k-diffusion takes exp(..) - 1 of the VP time instead of expm1.
    assert sigmas == pytest.approx(case["sigmas"], rel=1e-12, abs=0)
