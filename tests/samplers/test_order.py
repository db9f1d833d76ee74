"""The declared order of every deterministic sampler, against the exact solution of an ODE."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr

import kdiff
from kdiff.samplers import REGISTRY

# One problem for all: two humps of different height and width, from starts a quarter to a half of
# sigma_max away, at which even the samplers of order 4 are near their asymptotic regime at 16 steps
# and not yet at the rounding error at 256.
MEANS, STDS, WEIGHTS = np.array([0.21, -0.21]), np.array([0.26, 0.17]), np.array([0.6, 0.4])
STARTS = torch.linspace(-11, -5, 31, dtype=torch.float64)[:, None]
SIGMA_MAX, SIGMA_MIN = 20.0, 0.02
STEPS = (16, 32, 64, 128, 256)
LATER = (64, 128, 256, 512, 1024)  # for polynomials in sigma, whose errors are a tenth at 16 steps
BAND = 0.3

# `lower_order_final` is left out: it lowers the order of the last steps on purpose.
SETTINGS = [
    *[(name, dict(s.ode)) for name, s in REGISTRY.items() if s.ode is not None],
    *[("er_sde", {"scaler": "ode", "order": k}) for k in (1, 2)],
    ("seeds_2", {"eta": 0, "r": 0.3, "solver_type": "phi_2"}),
    ("seeds_3", {"eta": 0, "r_1": 0.4, "r_2": 0.8}),
    *[("euler_maruyama", {"eta": 0, "frame": frame}) for frame in ("ve", "vp")],
    ("reverse_diffusion", {"eta": 0, "frame": "vp"}),
    *[(name, {"order": k}) for name in ("lms", "ipndm") for k in (1, 2, 3, 4)],
    *[("deis", {"order": k, "variable": v}) for k in (1, 2, 3, 4) for v in ("t", "log_rho", "rho")],
    *[("unipc", {"order": k, "variant": v}) for k in (1, 2, 3, 4) for v in ("bh1", "bh2")],
    ("dpmpp_2m", {"solver_type": "heun"}),
    ("dpmpp_2m_sde", {"eta": 0, "solver_type": "heun"}),
    ("dpmpp_3m", {"as_published": True}),
    ("dpmpp_3m_sde", {"eta": 0, "as_published": True}),
    *[("dpmpp_sde", {"eta": 0, "r": r}) for r in (0.25, 1.0)],
]


def exact(x: float, s: float, t: float) -> float:
    """The ODE's flow keeps quantiles: F_s(x_s) = F_t(x_t), in whichever tail is the smaller."""

    def tail(x: float, sigma: float, sign: int) -> float:
        return float(WEIGHTS @ ndtr(sign * (x - MEANS) / np.hypot(STDS, sigma)))

    sign = 1 if tail(x, s, 1) < 0.5 else -1
    quantile = tail(x, s, sign)
    return brentq(lambda y: tail(y, t, sign) - quantile, -50, 50, xtol=1e-15, rtol=1e-15)


@functools.cache
def problem():
    tensors = [torch.from_numpy(a) for a in (MEANS[:, None], STDS, WEIGHTS)]
    ends = [[exact(float(x), SIGMA_MAX, SIGMA_MIN)] for x in STARTS]
    return kdiff.analytic.GaussianMixture(*tensors), torch.tensor(ends, dtype=torch.float64)


def measured_order(run, name: str, options: dict) -> float:
    """Minus the slope of log mean |error| over log steps."""
    model, ends = problem()
    errors = []
    for steps in LATER if name == "er_sde" else STEPS:
        sigmas = kdiff.schedule(
            "karras", steps, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, final="sigma_min"
        )
        errors.append((run(model, name, sigmas, STARTS, **options) - ends).abs().mean())
    return -np.polyfit(np.log(STEPS), np.log(errors), 1)[0]  # in which LATER is as long


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=str)
def test_the_order_is_the_declared_one(run, name, options):
    declared = REGISTRY[name].order(REGISTRY[name].with_defaults(options))
    assert measured_order(run, name, options) == pytest.approx(declared, abs=BAND)


def test_every_sampler_and_every_order_option_is_measured():
    solvers = {name: s for name, s in REGISTRY.items() if s.ode is not None}
    assert {name for name, _ in SETTINGS} == set(solvers)
    for name, s in solvers.items():
        orders = {s.with_defaults(options).get("order") for n, options in SETTINGS if n == name}
        if "order" in s.options:
            assert orders >= set(s.options["order"].choices), name


# D as a polynomial p(lambda), lambda = -ln sigma, whatever x is: then a step is
# x_t = (t / s) x_s + integral of e^(lambda - lambda_t) p(lambda), and a sampler that integrates
# polynomials of that degree makes it without error once it has its history.
GRID = (20.0, 9.0, 5.0, 1.5, 0.7, 0.2)


def integral(p, s: float, t: float) -> float:
    ends = -np.log(s), -np.log(t)
    return quad(lambda u: np.exp(u - ends[1]) * p(u), *ends, epsabs=0, epsrel=1e-13)[0]


def step_errors(name: str, degree: int, **options) -> list[float]:
    """In each step, what the sampler makes of D = lambda^degree minus what it should."""

    def p(u: float) -> float:
        return u**degree

    plan = kdiff.plan(sampler=name, sigmas=GRID, options=options)
    start = torch.ones(1, 1, dtype=torch.float64)
    states = kdiff.drive(
        lambda x, sigma: torch.full_like(x, p(-np.log(sigma))), plan, start, kdiff.Noise([0], (1,))
    )
    steps = zip(pairwise([float(state.x) for state in states]), pairwise(GRID), strict=True)
    return [b - t / s * a - integral(p, s, t) for (a, b), (s, t) in steps]


@pytest.mark.parametrize(
    ("name", "degree", "options"),
    [
        ("dpmpp_2m", 1, {"solver_type": "heun"}),
        ("dpmpp_3m", 2, {}),
        ("dpmpp_3m_sde", 2, {"eta": 0}),
    ],
)
def test_a_step_is_exact_for_polynomials_in_log_sigma(name, degree, options):
    errors = step_errors(name, degree, **options)
    assert np.abs(errors[:degree]).min() > 1e-3  # the warm-up is not
    assert errors[degree:] == pytest.approx([0] * (len(errors) - degree), abs=1e-13)


def test_the_published_3m_takes_half_of_the_second_moment():
    """The claim in `dpmpp_3m`: what is missing is half of integral w (u h)^2, for D = lambda^2."""
    errors = step_errors("dpmpp_3m", 2, as_published=True)[2:]
    steps = list(pairwise(GRID))[2:]
    missing = [-integral(lambda u, s=s: (u + np.log(s)) ** 2, s, t) / 2 for s, t in steps]
    assert errors == pytest.approx(missing, rel=1e-11)
    assert step_errors("dpmpp_3m", 1, as_published=True)[2:] == pytest.approx([0] * 3, abs=1e-13)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [("lms", {"order": 3}, 2), ("dpmpp_3m", {}, 2), ("unipc", {"order": 3}, 3)],
)
def test_the_first_steps_limit_the_order_when_sigma_max_is_low(run, name, options, order):
    """What `Sampler.order` says of the warm-up: from sigma = 1, where D bends, it shows."""
    model, _ = problem()
    start = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    ends = torch.tensor([[exact(float(x), 1.0, SIGMA_MIN)] for x in start], dtype=torch.float64)
    grids = [
        kdiff.schedule("karras", n, sigma_min=SIGMA_MIN, sigma_max=1.0, final="sigma_min")
        for n in (512, 1024)
    ]
    coarse, fine = ((run(model, name, g, start, **options) - ends).abs().mean() for g in grids)
    assert float(torch.log2(coarse / fine)) == pytest.approx(order, abs=0.3)
