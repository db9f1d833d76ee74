"""Preconditioners: the published coefficients, and one D behind every kind of network."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

import kdiff
from exact_models import relative
from kdiff.betas import sigmas_of
from kdiff.preconditioners import PRECONDS
from kdiff.samplers import REGISTRY
from kdiff.samplers.vp import vp_sigma, vp_time

SIGMAS = [0.0021, 0.02, 0.3, 1.0, 7.5, 79.0]
PARAMETERISATIONS = (
    *("edm", "consistency", "vp", "sub_vp", "ve", "iddpm"),
    *("eps", "v", "x0", "flow", "denoised"),
)


def alpha_bar(sigma: float) -> float:
    return 1 / (1 + sigma**2)


def sub_vp_alpha(sigma: float) -> float:
    """Song et al. 2021: x_t = alpha x0 + (1 - alpha^2) n, so that sigma = 1 / alpha - alpha."""
    return 2 / (sigma + math.sqrt(sigma**2 + 4))


def vp_t(sigma: float) -> float:
    """Karras et al. 2022, table 1: sigma^-1, with beta_d = 19.9 and beta_min = 0.1."""
    return (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + sigma**2)) - 0.1) / 19.9


# Karras et al. 2022, table 1, as printed; then what defines the other networks.
PUBLISHED = {
    "vp": lambda s: (1, -s, 1 / math.sqrt(s**2 + 1), 999 * vp_t(s)),
    "sub_vp": lambda s: (1, -s, sub_vp_alpha(s), 999 * vp_t(math.sqrt(s / sub_vp_alpha(s)))),
    "ve": lambda s: (1, s, 1, math.log(s / 2)),
    "edm": lambda s: (
        0.5**2 / (s**2 + 0.5**2),
        s * 0.5 / math.sqrt(0.5**2 + s**2),
        1 / math.sqrt(s**2 + 0.5**2),
        math.log(s) / 4,
    ),
    # Song et al. 2023, appendix C, and openai/consistency_models
    "consistency": lambda s: (
        0.5**2 / ((s - 0.002) ** 2 + 0.5**2),
        0.5 * (s - 0.002) / math.sqrt(0.5**2 + s**2),
        1 / math.sqrt(s**2 + 0.5**2),
        1000 * 0.25 * math.log(s + 1e-44),
    ),
    "iddpm": lambda s: (1, -s, 1 / math.sqrt(s**2 + 1)),
    "eps": lambda s: (1, -s, math.sqrt(alpha_bar(s))),
    # Salimans & Ho 2022: x0 = alpha z - sigma v, with z = x / sqrt(1 + s^2)
    "v": lambda s: (alpha_bar(s), -math.sqrt(1 - alpha_bar(s)), math.sqrt(alpha_bar(s))),
    "x0": lambda s: (0, 1, math.sqrt(alpha_bar(s))),
    "flow": lambda s: (1 / (1 + s), -s / (1 + s), 1 / (1 + s), s / (1 + s)),
    "denoised": lambda s: (0, 1, 1, s),
}


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_the_coefficients_are_the_published_ones(name, sigma):
    found, published = kdiff.precond(name)(sigma), PUBLISHED[name](sigma)
    # c_noise of vp as printed cancels at small t; elsewhere only rounding differs
    assert found[:3] == pytest.approx(published[:3], rel=1e-13)
    if len(published) == 4:
        assert found.c_noise == pytest.approx(published[3], rel=1e-9)
    assert all(type(c) is float for c in found)


def test_settings_reach_the_coefficients():
    assert kdiff.precond("edm", sigma_data=1.0)(1.0)[:3] == pytest.approx(
        (0.5, math.sqrt(0.5), math.sqrt(0.5))
    )
    assert kdiff.precond("flow", time_scale=1000)(1.0).c_noise == 500
    assert kdiff.precond("vp", steps=101)(vp_sigma(0.5)).c_noise == pytest.approx(50)
    assert kdiff.precond("edm", sigma_max=50).sigma_max == 50


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_a_preconditioner_is_made_again_from_its_config(name):
    made = PRECONDS[name](sigma_max=300.0) if name in ("edm", "ve", "flow") else PRECONDS[name]()
    again = kdiff.precond(**json.loads(json.dumps(made.config)))
    assert again.config == made.config and again.sigma_max == made.sigma_max
    assert [again(s) for s in SIGMAS] == [made(s) for s in SIGMAS]


def test_the_config_of_a_discrete_model_is_plain():
    table = torch.linspace(0.99, 0.01, 10, dtype=torch.float64)
    made = kdiff.precond("v", alphas_cumprod=table, round=True)
    assert kdiff.precond(**json.loads(json.dumps(made.config)))(0.7) == made(0.7)
    assert kdiff.precond("eps", end=0.03).config == {"name": "eps", "end": 0.03}


def test_vp_time_is_the_inverse_of_vp_sigma():
    for t in (1e-5, 1e-3, 0.3, 1.0):
        assert vp_time(vp_sigma(t)) == pytest.approx(t, rel=1e-12)


# --- one D, as what each kind of network predicts ---


MIXTURE = kdiff.analytic.GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)


def from_table(sigmas):
    """sigma of a (fractional) timestep: linear in log sigma between the table's."""
    return lambda t: math.exp(np.interp(t, range(len(sigmas)), np.log(sigmas)))


def predicts_eps(x_in: torch.Tensor, s: float) -> torch.Tensor:
    x = x_in * math.sqrt(1 + s**2)
    return (x - MIXTURE(x, s)) / s


def predicts_v(x_in: torch.Tensor, s: float) -> torch.Tensor:
    x0 = MIXTURE(x_in * math.sqrt(1 + s**2), s)
    return math.sqrt(alpha_bar(s)) * predicts_eps(x_in, s) - math.sqrt(1 - alpha_bar(s)) * x0


def predicts_velocity(x_in: torch.Tensor, s: float) -> torch.Tensor:
    """n - x0 of x_t = (1 - t) x0 + t n."""
    t = s / (1 + s)
    x0 = MIXTURE(x_in / (1 - t), s)
    return (x_in - (1 - t) * x0) / t - x0


def predicts_edm_target(x_in: torch.Tensor, s: float, name: str = "edm") -> torch.Tensor:
    """EDM, eq. 8: (x0 - c_skip x) / c_out."""
    c_skip, c_out, c_in, _ = PUBLISHED[name](s)
    x = x_in / c_in
    return (MIXTURE(x, s) - c_skip * x) / c_out


DISCRETE_SIGMAS = sigmas_of(kdiff.alphas_cumprod("linear"))
# what the network predicts, and the sigma that it reads from c_noise
NETWORKS = {
    "edm": (predicts_edm_target, lambda c: math.exp(4 * c)),
    "consistency": (
        partial(predicts_edm_target, name="consistency"),
        lambda c: math.exp(c / 250),
    ),
    "vp": (predicts_eps, lambda c: vp_sigma(c / 999)),
    "sub_vp": (
        lambda x, s: (x / sub_vp_alpha(s) - MIXTURE(x / sub_vp_alpha(s), s)) / s,
        lambda c: vp_sigma(c / 999) ** 2 / math.hypot(1, vp_sigma(c / 999)),
    ),
    "ve": (lambda x, s: (MIXTURE(x, s) - x) / s, lambda c: 2 * math.exp(c)),
    "iddpm": (predicts_eps, from_table(kdiff.precond("iddpm").sigmas)),
    "eps": (predicts_eps, from_table(DISCRETE_SIGMAS)),
    "v": (predicts_v, from_table(DISCRETE_SIGMAS)),
    "x0": (lambda x, s: MIXTURE(x * math.sqrt(1 + s**2), s), from_table(DISCRETE_SIGMAS)),
    "flow": (predicts_velocity, lambda c: c / (1 - c)),
    "denoised": (MIXTURE, lambda c: c),
}


def denoiser(name: str) -> kdiff.Denoiser:
    target, sigma_of = NETWORKS[name]
    return kdiff.Denoiser(lambda x, c: target(x, sigma_of(c[0].item())), name, shape=(2,))


def test_no_parameterisation_is_left_out():
    assert set(NETWORKS) == set(PUBLISHED) == set(PARAMETERISATIONS) == set(PRECONDS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_same_denoised(name):
    model = denoiser(name)
    unit = kdiff.Noise(range(8), (2,), torch.float64).initial()
    # at sigma_min, no network of a consistency model makes D anything but x
    for sigma in np.geomspace(model.sigma_min, model.sigma_max, 50)[name == "consistency" :]:
        x = float(sigma) * unit
        assert relative(model(x, float(sigma)), MIXTURE(x, float(sigma))) < 1e-6, sigma


@pytest.mark.parametrize("sampler", REGISTRY)
def test_every_network_gives_the_same_samples(run, sampler):
    start = 70 * kdiff.Noise(range(4), (2,), torch.float64).initial()
    sigmas = kdiff.schedule("karras", 10, sigma_min=0.03, sigma_max=70)
    options = REGISTRY[sampler].ode or {}
    expected = run(MIXTURE, sampler, sigmas, start, **options)
    for name in NETWORKS:
        found = run(denoiser(name), sampler, sigmas, start, **options)
        assert relative(found, expected) < 1e-6, name


# --- released code, and what is wrong ---


def test_a_consistency_model_is_the_identity_at_sigma_min():
    model = kdiff.Denoiser(lambda x, c: 1 + x**2, "consistency", shape=(2,))
    x = kdiff.Noise(range(4), (2,), torch.float64).initial()
    assert torch.equal(model(x, 0.002), x)
    other = kdiff.precond("consistency", sigma_data=1.0, sigma_min=0.5)
    assert other(0.5)[:2] == (1, 0) and other(2.5)[:2] == pytest.approx((0.2, 2 / math.sqrt(7.25)))


def test_iddpm_against_the_released_code_of_karras():
    """EDM's iDDPMPrecond: c_noise = M - 1 - argmin |u_j - sigma|, u_0 the largest."""
    M, C1, C2 = 1000, 0.001, 0.008
    u = torch.zeros(M + 1, dtype=torch.float64)
    for j in range(M, 0, -1):
        a, a_next = (math.sin(0.5 * np.pi * k / M / (C2 + 1)) ** 2 for k in (j, j - 1))
        u[j - 1] = ((u[j] ** 2 + 1) / max(a_next / a, C1) - 1).sqrt()
    precond = kdiff.precond("iddpm", round=True)
    torch.testing.assert_close(
        torch.tensor(precond.sigmas[::-1], dtype=torch.float64), u[:M], rtol=1e-12, atol=0
    )
    for sigma in SIGMAS[1:]:  # below u_999 / 2 theirs is -1, for u_1000 = 0; here it stays 0
        assert precond(sigma).c_noise == M - 1 - int((u - sigma).abs().argmin())
        assert abs(kdiff.precond("iddpm")(sigma).c_noise - precond(sigma).c_noise) < 0.51


def test_wrong_names_and_settings():
    with pytest.raises(ValueError, match="unknown preconditioner 'edn'; did you mean edm"):
        kdiff.precond("edn")
    with pytest.raises(ValueError, match="unknown beta schedule 'quadratic'; there is linear"):
        kdiff.precond("eps", alphas_cumprod="quadratic")
    with pytest.raises(TypeError, match="sigma_dta"):
        kdiff.precond("edm", sigma_dta=1)
    with pytest.raises(TypeError, match="beta_start"):
        kdiff.precond("eps", beta_start=1)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("edm", {"sigma_min": "x"}, "sigma_min must be a number, not 'x'"),
        ("edm", {"sigma_max": [1]}, "sigma_max must be a number"),
        ("edm", {"sigma_data": None}, "sigma_data must be a number"),
        ("flow", {"time_scale": "1000"}, "time_scale must be a number, not '1000'"),
        ("vp", {"steps": "x"}, "steps must be a whole number"),
        ("vp", {"beta_d": 1e300}, "there is no vp with"),
        ("iddpm", {"c1": 0, "c2": -1}, "there is no iddpm with"),
        ("v", {"round": "maybe"}, "round must be True or False, not 'maybe'"),
        ("eps", {"start": "x"}, "start must be a number, not 'x'"),
    ],
)
def test_settings_of_another_type(name, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        kdiff.precond(name, **settings)


def test_names_are_found_as_those_of_samplers_are():
    assert kdiff.precond("Sub-VP").config == {"name": "sub_vp"}
    assert kdiff.precond("EDM").name == "edm"
    for wrong in (3, None):
        with pytest.raises(TypeError, match="a name must be text"):
            kdiff.precond(wrong)
