"""Schedules against other ways to compute them, and against the libraries that have them."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats

import kdiff
from kdiff.betas import zero_terminal_snr
from kdiff.schedules import FINALS, SCHEDULES, Range
from kdiff.schedules.beta_quantiles import beta_quantiles
from kdiff.schedules.spreading import separated

GOLDEN = Path(__file__).parents[1] / "golden"
SD = kdiff.precond("eps", alphas_cumprod="scaled_linear")
CONTINUOUS = [name for name, schedule in SCHEDULES.items() if not schedule.discrete]


def between(low, high, name, steps, **settings):
    return kdiff.schedule(name, steps, sigma_min=low, sigma_max=high, **settings)


# --- every schedule ---


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (1e-4, 1e6), (0.3, 0.5)])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_any_range_and_number_of_steps(name, low, high, final):
    if name == "iddpm" and high < 1:
        pytest.skip("a table has its own range")
    for steps in (1, 2, 3, 4, 17, 1000):
        sigmas = between(low, high, name, steps, final=final)
        assert len(sigmas) == steps + 1
        assert sigmas[0] == high
        assert all(a > b for a, b in pairwise(sigmas))
        assert sigmas[-1] == (0 if final == "zero" else low)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_in_the_time_of_a_flow(name):
    """The same formula, of u = sigma / (1 + sigma)."""
    grid = between(0.1, 9.0, name, 5, final="sigma_min", flow=True)
    u = [s / (1 + s) for s in grid]
    of_u = between(0.1 / 1.1, 0.9, name, 5, final="sigma_min", flow=False)
    assert u == pytest.approx(of_u, rel=1e-12)


# --- against ComfyUI and diff-sampler, which are stored ---

COMFYUI = json.loads((GOLDEN / "zoo_comfyui.json").read_text())["schedules"]
DIFF_SAMPLER = json.loads((GOLDEN / "zoo_diff_sampler.json").read_text())["schedules"]
AS_OURS = {
    "beta": ("beta_timesteps", {}),
    "linear_quadratic": ("linear_quadratic", {"flow": False}),
    ("align_your_steps", "SD1"): ("ays", {}),
    ("align_your_steps", "SDXL"): ("ays_sdxl", {}),
    ("align_your_steps", "SVD"): ("ays_svd", {"sigma_min": 0.002, "sigma_max": 700.0}),
}


def case_id(case):
    told = "-".join(map(str, case["settings"].values()))
    return f"{case['name']}-{case['steps']}-{told}"


@pytest.mark.parametrize("case", COMFYUI, ids=case_id)
def test_comfyui(case):
    name, told = case["name"], case["settings"]
    ours, settings = AS_OURS.get((name, told.get("levels")), AS_OURS.get(name, (name, {})))
    expected, steps, final = case["sigmas"], case["steps"], "zero"
    if name == "laplace":  # without the last zero
        settings, expected = told, [*expected, 0.0]
    if name == "gits":
        settings = {"sigma_min": 0.02916753, "sigma_max": 14.61464119}
        final = "zero" if expected[-1] == 0 else "sigma_min"
    if name == "optimal_steps":  # times of a flow
        first, last = 0.9968 / (1 - 0.9968), 0.001 / 0.999
        ours, settings = "oss", {"sigma_min": last, "sigma_max": first}
        expected = [u / (1 - u) for u in expected]
    found = kdiff.schedule(ours, steps, SD, final=final, **settings)
    # Its tables are float32; a flow's 1 - u has two digits less where it starts.
    assert found == pytest.approx(expected, rel=1e-5 if name != "optimal_steps" else 1e-4)


def test_where_comfyui_has_another_number_of_steps():
    """1000 // 30 is 33, and from timestep 1 there are 31 of them; as many as asked for here."""
    assert len(kdiff.schedule("ddim_uniform", 30, SD)) == 31
    assert len(set(kdiff.schedule("beta_timesteps", 500, SD))) == 501


@pytest.mark.parametrize("case", DIFF_SAMPLER, ids=case_id)
def test_diff_sampler(case):
    settings = dict(case["settings"])
    power = settings.pop("schedule_rho", None)
    name = {"polynomial": "karras"}.get(case["name"], case["name"])
    if name == "time_uniform":
        settings["power"] = power
    found = kdiff.schedule(name, case["steps"], final="sigma_min", **settings)
    assert found == pytest.approx(case["sigmas"], rel=1e-5)


# --- against diffusers ---


def test_use_beta_sigmas():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.EulerDiscreteScheduler(use_beta_sigmas=True)
    theirs.set_timesteps(12)
    low, high = theirs.sigmas[-2].item(), theirs.sigmas[0].item()
    assert theirs.sigmas.tolist() == pytest.approx(between(low, high, "beta", 12), rel=1e-5)


def test_the_times_of_flux():
    """Its pipeline gives even times from 1 to 1/n, which the scheduler shifts."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 7, 7))
    ours = np.array(between(1e-3, 1e9, "flow_shift", 7))
    assert theirs.sigmas.tolist() == pytest.approx(ours / (1 + ours), rel=1e-5)


def test_align_your_steps():
    schedulers = pytest.importorskip("diffusers.schedulers")
    for ours, theirs in (
        ("ays", "StableDiffusion"),
        ("ays_sdxl", "StableDiffusionXL"),
        ("ays_svd", "StableDiffusionVideo"),
    ):
        sigmas = schedulers.AysSchedules[f"{theirs}Sigmas"]
        settings = {"sigma_min": 0.002, "sigma_max": 700.0} if ours == "ays_svd" else {}
        # printed to three decimals, of a table that differs in the last
        assert kdiff.schedule(ours, 10, SD, **settings) == pytest.approx(sigmas, abs=4e-3)


def test_zero_terminal_snr():
    pytest.importorskip("diffusers")
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    torch = pytest.importorskip("torch")
    alphas = kdiff.alphas_cumprod("scaled_linear")
    ours = zero_terminal_snr(alphas)
    betas = 1 - torch.tensor(alphas) / torch.tensor([1.0, *alphas[:-1]])
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas.double()), 0)
    assert ours == pytest.approx(theirs.tolist(), rel=1e-5, abs=1e-11)
    assert ours[-1] == 0 and ours[0] == pytest.approx(alphas[0], rel=1e-15)
    model = kdiff.precond("v", alphas_cumprod="scaled_linear", zero_snr=True)
    assert model.sigmas[:-1] == pytest.approx([math.sqrt(1 / a - 1) for a in ours[:-1]])
    assert model.sigmas[-1] == pytest.approx(4096, rel=1e-7)
    for wrong in ([0.5], [0.2, 0.5], 3):
        with pytest.raises(ValueError, match="alphas_cumprod must be a list that decreases"):
            zero_terminal_snr(wrong)


# --- by their formulas ---


def test_cosine():
    """alphas_cumprod of the cosine schedule is cos^2 of an even angle."""
    found = np.array(between(0.01, 50.0, "cosine", 9)[:-1])
    angle = np.arccos(np.sqrt(1 / (1 + found**2)) * math.cos(0.008 / 1.008 * math.pi / 2))
    assert np.diff(angle) == pytest.approx(np.full(8, np.diff(angle).mean()), rel=1e-9)
    assert between(0.1, 9.0, "cosine", 9, s=0) == pytest.approx(between(0.1, 9.0, "kl_optimal", 9))


def test_kl_optimal_scales_with_the_data():
    plain = between(0.02, 20.0, "kl_optimal", 6)
    scaled = between(0.01, 10.0, "kl_optimal", 6, sigma_data=0.5)
    assert [2 * s for s in scaled] == pytest.approx(plain, rel=1e-12)


def test_iddpm_is_as_in_the_ablation_of_edm():
    """Karras et al. 2022, table 1: u_floor(j0 + (M - 1 - j0) i / (N - 1) + 1/2), j0 = 8, to 81."""
    u = kdiff.precond("iddpm").sigmas[::-1]
    i = np.arange(18)
    expected = [u[int(j)] for j in 8 + 991 / 17 * i + 0.5]
    found = between(u[-1], u[8], "iddpm", 18)
    assert found[:-1] == pytest.approx(expected, rel=1e-12)


def test_the_ve_of_the_ablation_of_edm_is_exponential():
    i = np.arange(18)
    expected = np.sqrt(100**2 * (0.02**2 / 100**2) ** (i / 17))
    assert between(0.02, 100, "ve", 18)[:-1] == pytest.approx(expected, rel=1e-12)


def test_probit():
    """skrample: sigmoid(norm.ppf(t (1 - 1e-8), scale=3)), from 1 to 0 by its own ends."""
    p = np.linspace(1, 0, 9) * (1 - 1e-8)
    s = scipy.special.expit(scipy.stats.norm.ppf(p, scale=3))
    assert between(0.01, 7.0, "probit", 8) == pytest.approx(7 * s / s[0], rel=1e-9)


def test_bong_tangent():
    """By hand for four steps: n = 6, pivot 3, slope .2 / (6 / 40), arctangents of 1 to 1/2 in three
    points, 1/2 to 0 in three."""
    k = 0.2 / (6 / 40)
    one = [math.atan(-k * (x - 3)) for x in range(3)]
    two = [math.atan(-k * x) for x in range(3)]
    first = [0.5 + 0.5 * (y - one[-1]) / (one[0] - one[-1]) for y in one[:-1]]
    u = [*first, *[0.5 * (y - two[-1]) / (two[0] - two[-1]) for y in two]]
    found = between(1e-3, 1e6, "bong_tangent", 4)
    assert [s / (1 + s) for s in found] == pytest.approx(u, abs=2e-6)


def test_flow_is_even_in_its_time():
    """From sigma = 9 (t = .9) in three steps to 0: t = .9, .6, .3."""
    assert between(0.01, 9.0, "flow", 3) == pytest.approx([9, 1.5, 3 / 7, 0], rel=1e-12)
    shifted = between(0.01, 27.0, "flow", 3, shift=3.0)  # sigma = shift t / (1 - t)
    assert shifted == pytest.approx([27, 4.5, 9 / 7, 0], rel=1e-12)
    # e^.5 for 256 tokens, e^1.15 for 4096
    for tokens, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        dynamic = between(0.01, 9.0, "flow_resolution", 4, tokens=tokens)
        assert dynamic == pytest.approx(between(0.01, 9.0, "flow", 4, shift=math.exp(mu)))


def test_laplace_is_spread_where_its_quantiles_are_out_of_range():
    found = between(0.5, 2.0, "laplace", 50)
    assert len(set(found)) == 51


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.7), (1, 1), (2, 5), (9.5, 0.3), (40, 3)])
def test_beta_quantiles(a, b):
    p = np.linspace(0, 1, 201)
    expected = scipy.special.betaincinv(a, b, p)
    np.testing.assert_allclose(beta_quantiles(p, a, b), expected, rtol=1e-9, atol=1e-14)


def test_separated():
    points = np.array([9.0, 9, 9, 6, 5, 5, 2, 2])
    assert separated(points).tolist() == [9, 8, 7, 6, 5, 4, 3, 2]
    assert separated(np.array([3.0, 2, 1])).tolist() == [3, 2, 1]
    assert separated(np.array([3.0])).tolist() == [3]


# --- settings ---


def test_settings_may_follow_the_name():
    assert kdiff.schedule("karras:rho=5", 4) == kdiff.schedule("karras", 4, rho=5)
    beta = kdiff.schedule("beta:alpha=0.5:beta=.7", 4)
    assert beta == kdiff.schedule("beta", 4, alpha=0.5, beta=0.7)
    assert kdiff.schedule("Karras : flow = true", 4) == kdiff.schedule("karras", 4, flow=True)
    assert kdiff.schedule("flow_shift", 4) == kdiff.schedule("flow:shift=3", 4)
    assert kdiff.schedule("karras:rho=5", 4, rho=7) == kdiff.schedule("karras", 4)
    assert kdiff.plan(steps=3, schedule="karras:rho=5").schedule == "karras:rho=5"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("karras:rho", {}, "settings are numbers, as in flow:shift=3, not 'rho'"),
        ("karras:rho=x", {}, "settings are numbers"),
        ("karras:eta=1", {}, "the karras schedule has no setting 'eta'; it has rho, flow"),
        ("karras", {"flow": 2}, "flow must be true or false, not 2"),
        ("beta", {"alpha": 0}, "alpha and beta must be above 0 and at most 50"),
        ("beta:alpha=51", {}, "alpha and beta must be above 0 and at most 50"),
        ("flow:shift=0", {}, "there is no flow schedule with"),
        ("flow:shift=-1", {}, "there is no flow schedule with|strictly decreasing"),
        ("time_uniform:t_min=1", {}, "there is no time_uniform schedule with"),
        ("laplace:beta=-1", {}, "strictly decreasing"),
        ("linear_quadratic:threshold=2", {}, "strictly decreasing"),
        ("Automatic", {}, "there is no schedule 'Automatic': A1111 means the sampler's own"),
        ("iddpm", {"sigma_min": 1, "sigma_max": 1.001}, "too few noise levels"),
    ],
)
def test_wrong_settings(name, settings, message):
    with pytest.raises(ValueError, match=message):
        kdiff.schedule(name, 5, **settings)


def test_a_range_for_the_published_ones():
    """Of another range than published they are stretched in ln sigma."""
    published = np.array(kdiff.schedule("ays", 10, SD)[:-1])
    other = np.array(kdiff.schedule("ays", 10, Range(0.002, 80.0))[:-1])
    share = (np.log(published) - math.log(SD.sigma_min)) / math.log(SD.sigma_max / SD.sigma_min)
    assert np.log(other) == pytest.approx(math.log(0.002) + share * math.log(40_000))
