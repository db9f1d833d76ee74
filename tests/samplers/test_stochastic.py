"""Samplers that add noise: what they reduce to, and the distribution that they sample."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import kdiff
from gaussian_moments import MEAN, STD, exact_distribution
from kdiff.samplers import REGISTRY
from kdiff.samplers.tableau import trace

MIXTURE = kdiff.analytic.GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)
START = torch.tensor([[0.3, -1.2], [1.5, 0.4]], dtype=torch.float64)
SIGMAS = kdiff.schedule("karras", 8)


def close(a, b, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- what they reduce to ---

FULL = {"lower_order_final": False}
EQUAL = [
    (("euler_ancestral", {"eta": 0}), ("euler", {})),
    (("ddim", {"eta": 0}), ("euler", {})),
    (("ddim", {"eta": 1}), ("euler_ancestral", {"eta": 1})),
    (("ddim", {"eta": 0.4}), ("euler_ancestral", {"eta": 0.4})),
    (("dpm_2_ancestral", {"eta": 0}), ("dpm_2", {})),
    (("dpmpp_2m_sde", {"eta": 0}), ("dpmpp_2m", {})),
    (
        ("dpmpp_2m_sde", {"eta": 0, "solver_type": "heun"}),
        ("dpmpp_2m", {"solver_type": "heun"}),
    ),
    (("dpmpp_3m_sde", {"eta": 0}), ("dpmpp_3m", {})),
    (("dpmpp_3m_sde", {"eta": 0, "as_published": True}), ("dpmpp_3m", {"as_published": True})),
    (("dpmpp_sde", {"eta": 0, "r": 0.5}), ("dpmpp_2s_ancestral", {"eta": 0})),
    (("res_2s", {"solver_type": "phi_1"}), ("dpmpp_2s_ancestral", {"eta": 0})),
    (("exp_heun_2_x0_sde", {"eta": 0}), ("res_2s", {"c2": 1.0})),
    (("rk2", {"alpha": 1.0}), ("heun", {})),
    (("rk2", {"alpha": 1.0, "S_churn": 8}), ("heun", {"S_churn": 8})),
    (("rk2", {"alpha": 0.5, "variable": "log_sigma", "S_churn": 8}), ("dpm_2", {"S_churn": 8})),
    (("rk2", {"alpha": 2 / 3}), ("runge_kutta", {"tableau": "ralston2"})),
    (("heunpp2", {"slopes": 2}), ("heun", {})),
    (("heunpp2", {"slopes": 2, "S_churn": 8}), ("heun", {"S_churn": 8})),
    (("dpmpp_singlestep", {"order": 1}), ("euler", {})),
    (("dpmpp_km", {"order": 2}), ("dpmpp_2m", {"solver_type": "heun"})),
    (("dpmpp_km", {"order": 3}), ("dpmpp_3m", {})),
    (("dpmpp_km", {"order": 2, "eta": 0.5}), ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.5})),
    (
        ("dpmpp_km", {"order": 4}),
        ("unipc", {"order": 4, "corrector": False, "variant": "vary_coeff"}),
    ),
    (("unipc", {"order": 1, "corrector": False}), ("euler", {})),
    (("dpm_solver_multistep", {"solver_type": "heun"}), ("deis", {"order": 2})),
    (("dpm_solver_multistep", {"solver_type": "heun", "order": 3}), ("deis", {})),
    (("ipndm_v", {}), ("deis", {"order": 4, "variable": "rho"})),
    (("stork4", {}), ("velocity_adams", {"order": 3})),
    *[
        (
            ("sa_solver", {"tau": 0, "predictor_order": k, "corrector_order": k + 1} | FULL),
            ("unipc", {"order": k, "variant": "vary_coeff"}),
        )
        for k in (2, 4)
    ],
    (
        ("sa_solver", {"corrector_order": 0, "tau_min": 0, "tau_max": 100} | FULL),
        ("dpmpp_3m_sde", {}),
    ),
    # outside of [S_tmin, S_tmax] there is no churn
    *[((name, {"S_churn": 40, "S_tmin": 100}), (name, {})) for name in ("euler", "heun", "dpm_2")],
    *[((name, {"S_churn": 40, "S_tmax": 1e-4}), (name, {})) for name in ("euler", "heun", "dpm_2")],
]


@pytest.mark.parametrize("sigmas", [SIGMAS, SIGMAS[:-1]], ids=["zero", "sigma_min"])
@pytest.mark.parametrize(("one", "other"), EQUAL, ids=str)
def test_two_samplers_are_one(run, one, other, sigmas):
    results = [run(MIXTURE, name, sigmas, 80 * START, **o) for name, o in (one, other)]
    close(*results)


NOISY_SETTINGS = {
    "S_churn": 10,
    "eta": 0.5,
    "gamma": 0.5,
    "scaler": "sde_5",
    "restarts": "[[3, 4, 0.1, 2]]",
    "tau_min": 0,
    "tau_max": 100,
}


@pytest.mark.parametrize("name", [n for n, s in REGISTRY.items() if s.noise and s.ode and s.linear])
def test_an_ode_setting_draws_no_noise_and_another_does(name):
    s = REGISTRY[name]
    assert trace(s, SIGMAS, s.ode).noises == []
    noisy = {key: v for key, v in NOISY_SETTINGS.items() if key in s.options}
    wanted = {"restart": 4, "dpm_fast": 2}.get(name, 7)  # dpm_fast: after blocks of three steps
    assert len(trace(s, SIGMAS, noisy).noises) >= wanted


def noise() -> kdiff.Noise:
    return kdiff.Noise(range(2), (2,), torch.float64)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, "sigma_hat"])
def test_ddim_against_the_paper_in_the_variance_preserving_frame(run, eta):
    """Song et al. 2021: eq. 12 with sigma of eq. 16; with sigma_hat, the direction of eta = 1 and
    noise of sqrt(1 - a / a_next). `a` is alphas_cumprod of their released models (DDPM's alpha)."""
    alphas = [1 / (1 + s * s) for s in SIGMAS]
    z = noise()
    x = math.sqrt(alphas[0]) * 80 * START
    for (a, a_next), (s, t) in zip(pairwise(alphas), pairwise(SIGMAS), strict=True):
        x0 = MIXTURE(x / math.sqrt(a), s)
        eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        sigma_hat = math.sqrt(1 - a / a_next)
        sigma = math.sqrt((1 - a_next) / (1 - a)) * sigma_hat * (1 if eta == "sigma_hat" else eta)
        x = math.sqrt(a_next) * x0 + math.sqrt(max(0, 1 - a_next - sigma**2)) * eps
        if t > 0:
            x = x + (sigma_hat if eta == "sigma_hat" else sigma) * z.white(s, t)
    options = {"variance": "sigma_hat"} if eta == "sigma_hat" else {"eta": eta}
    close(run(MIXTURE, "ddim", SIGMAS, 80 * START, **options), x)


@pytest.mark.parametrize("second_order", [False, True])
def test_churn_against_algorithm_2_of_karras(run, second_order):
    settings = {"S_churn": 5.0, "S_tmin": 0.1, "S_tmax": 30.0, "S_noise": 1.003}
    steps, x, z = len(SIGMAS) - 1, 80 * START, noise()
    gammas = []
    for t_cur, t_next in pairwise(SIGMAS):
        churns = settings["S_tmin"] <= t_cur <= settings["S_tmax"]
        gamma = min(settings["S_churn"] / steps, math.sqrt(2) - 1) if churns else 0
        gammas.append(gamma)
        t_hat = t_cur + gamma * t_cur
        x_hat = x
        if gamma:
            scale = settings["S_noise"] * math.sqrt(t_hat**2 - t_cur**2)
            x_hat = x + scale * z.white(t_cur, t_hat)
        d_cur = (x_hat - MIXTURE(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d_cur
        if second_order and t_next > 0:
            d_prime = (x - MIXTURE(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (0.5 * d_cur + 0.5 * d_prime)
    assert 0 < gammas.count(0) < steps  # some steps churn and some do not
    name = "heun" if second_order else "euler"
    close(run(MIXTURE, name, SIGMAS, 80 * START, **settings), x)


# --- the distribution, exactly ---

NOISY = [
    ("euler", {"S_churn": 8}),
    ("heun", {"S_churn": 8}),
    ("dpm_2", {"S_churn": 8}),
    ("euler_ancestral", {}),
    ("ddim", {"eta": 0.5}),
    ("ddim", {"variance": "sigma_hat"}),
    ("dpm_2_ancestral", {}),
    ("dpmpp_2s_ancestral", {}),
    ("dpmpp_sde", {}),
    ("dpmpp_sde", {"eta": 0.5, "r": 0.3}),
    ("dpmpp_km", {"eta": 1.0}),
    *[(f"sa_solver{again}", {"tau_min": 0, "tau_max": 100}) for again in ("", "_pece")],
    ("sa_solver", {"tau": 0.5, "tau_min": 0, "tau_max": 100, "simple_order_2": True} | FULL),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_2m_sde", {"eta": 0.5, "solver_type": "heun"}),
    ("dpmpp_3m_sde", {}),
    ("dpmpp_3m_sde", {"as_published": True}),
    *[(f"{name}_ancestral_flow", {}) for name in ("euler", "dpm_2", "dpmpp_2s")],
    ("seeds_2", {}),
    ("seeds_2", {"eta": 0.5, "r": 0.3, "solver_type": "phi_2"}),
    ("seeds_3", {}),
    ("er_sde", {}),
    ("er_sde", {"as_published": True}),
    *[("er_sde", {"scaler": f"sde_{i}"}) for i in (1, 2, 3, 4)],
    ("er_sde", {"scaler": "sde", "order": 1}),
    *[("euler_maruyama", {"frame": frame}) for frame in ("edm", "vp")],
    *[("reverse_diffusion", {"frame": frame}) for frame in ("ve", "vp")],
    ("rk2", {"S_churn": 8}),
    ("heunpp2", {"S_churn": 8}),
    ("exp_heun_2_x0_sde", {}),
    ("exp_heun_2_x0_sde", {"eta": 0.5, "solver_type": "phi_1"}),
    ("dpm_fast", {"eta": 1.0}),
    ("dpmpp_singlestep", {"eta": 1.0}),
    ("dpmpp_singlestep", {"eta": 0.5, "order": 2}),
]
# Their moments do not converge with the steps, as the levels and steps within are their own; they
# are exact; or (ve) errors of either sign meet.
OTHERS = [
    ("euler_maruyama", {"frame": "ve"}),
    ("analytic_dpm", {}),
    ("restart", {}),
    ("restart", {"gamma": 0.1}),
    ("annealed_langevin", {}),
]


def errors(name: str, options: dict, steps: int) -> np.ndarray:
    """The errors of mean and variance at sigma = 0.05."""
    grid = kdiff.schedule("karras", steps, sigma_min=0.05, sigma_max=20, final="sigma_min")
    mean, variance = exact_distribution(name, options, grid)
    return np.abs([mean - MEAN, variance / (STD**2 + 0.05**2) - 1])


@pytest.mark.parametrize(("name", "options"), NOISY, ids=str)
def test_mean_and_variance_converge_to_the_exact_ones(name, options):
    coarse, fine = errors(name, options, 100), errors(name, options, 400)
    assert (fine < [2e-3, 2e-2]).all()
    # First order at least: four times the steps, at most a quarter and a bit of the error.
    assert (fine < np.maximum(coarse / 3.3, 1e-13)).all()


@pytest.mark.parametrize(
    ("name", "options"), [("dpmpp_2m_sde", {"solver_type": "heun"}), ("dpmpp_3m_sde", {})]
)
def test_multistep_sde_samplers_are_of_second_order_in_the_variance(name, options):
    coarse, fine = errors(name, options, 100), errors(name, options, 400)
    assert fine[1] < coarse[1] / 12


@pytest.mark.parametrize(("name", "options"), NOISY + OTHERS, ids=str)
def test_samples_have_the_exact_mean_and_variance(run, name, options):
    """Exact for this sampler on this coarse grid, so without bias: within 5 standard errors."""
    sigmas = kdiff.schedule("karras", 6, sigma_min=0.05, sigma_max=20, final="sigma_min")
    mean, variance = exact_distribution(name, options, sigmas)
    seeds, size = 4, 10_000
    n = seeds * size
    model = kdiff.analytic.gaussian(torch.full((size,), MEAN, dtype=torch.float64), STD)
    start = kdiff.Noise(range(seeds), (size,), torch.float64).initial()
    x = run(model, name, sigmas, MEAN + math.hypot(STD, sigmas[0]) * start, **options)
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(x.var() - variance) < 5 * variance * math.sqrt(2 / (n - 1))


# What one step of Gaussian data asks for: gamma = sigma^2 / (sigma^2 + STD^2).
GAMMAS = json.dumps([[s, s**2 / (s**2 + STD**2)] for s in np.geomspace(0.01, 30, 2000).tolist()])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("known", "tolerance"), [({"sigma_data": STD}, 1e-13), ({"gammas": GAMMAS}, 1e-4)]
)
def test_the_analytic_variance_is_exact_on_gaussian_data(eta, known, tolerance):
    sigmas = kdiff.schedule("karras", 4, sigma_min=0.05, sigma_max=20, final="sigma_min")
    mean, variance = exact_distribution("analytic_dpm", {"eta": eta, **known}, sigmas)
    assert mean == pytest.approx(MEAN, abs=1e-13)
    assert variance == pytest.approx(STD**2 + sigmas[-1] ** 2, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_corrector_in_few_bits(dtype):
    """Norms beyond float16's 65,504 do not matter, and where D is x to rounding, x stays."""
    shape, sigmas = (3, 160, 160), [2.0, 0.5, 0.002, 0.001]
    exact = kdiff.analytic.gaussian(torch.full(shape, 0.5), 0.2)
    found, expected = (
        kdiff.sample(
            lambda x, s: x if s < 0.01 else exact(x.float(), s).to(x.dtype),
            "predictor_corrector",
            sigmas=sigmas[:levels],
            shape=shape,
            dtype=dtype,
        ).double()
        for levels in (4, 3)
    )
    assert found.std() < 1 and (found - expected).std() < 0.005


def test_langevin_steps_have_the_variance_of_their_recursion():
    """On N(m, v): y = x - m gets (1 - a s^2 / (s^2 + v) / 2) y + s sqrt(a) n in each step."""
    sigmas, a, steps = [3.0, 1.0, 0.3], 0.2, 7
    variance = STD**2 + sigmas[0] ** 2
    for s in sigmas:
        for _ in range(steps):
            shrink = 1 - a / 2 * s**2 / (s**2 + STD**2)
            variance = shrink**2 * variance + a * s**2
    options = {"per_level": steps, "step_size": a}
    assert exact_distribution("annealed_langevin", options, sigmas) == pytest.approx(
        (MEAN, variance), rel=1e-12
    )


def test_a_restart_on_a_fine_grid_keeps_the_distribution():
    sigmas = kdiff.schedule("karras", 100, sigma_min=0.05, sigma_max=20, final="sigma_min")
    options = {"restarts": "[[60, 3, 0.1, 2], [40, 2, 1, 5]]"}
    mean, variance = exact_distribution("restart", options, sigmas)
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert variance == pytest.approx(STD**2 + sigmas[-1] ** 2, rel=3e-3)


def test_finer_steps_follow_the_same_brownian_path(run):
    """Strong convergence: more steps change a sample less and less, towards one limit."""
    start = 20 * kdiff.Noise([0], (500,), torch.float64).initial()
    model = kdiff.analytic.gaussian(torch.full((500,), MEAN, dtype=torch.float64), STD)
    steps = (32, 64, 128, 256)
    grids = [
        kdiff.schedule("exponential", n, sigma_min=0.05, sigma_max=20, final="sigma_min")
        for n in steps
    ]
    results = [run(model, "dpmpp_2m_sde", grid, start) for grid in grids]
    changes = [float((a - b).std()) for a, b in pairwise(results)]
    assert changes[0] < 0.1 * STD
    slope = np.polyfit(np.log(steps[:-1]), np.log(changes), 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)
