"""The declared order of every deterministic sampler, against the exact solution of an ODE."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq
from scipy.special import ndtr

import kdiff
from kdiff.certificates import orders
from kdiff.certificates.problems import HUMPS, humps
from kdiff.samplers import REGISTRY, Walk
from kdiff.samplers.butcher import TABLEAUX

MEANS, STDS, WEIGHTS = map(np.array, (HUMPS.means, HUMPS.stds, HUMPS.weights))
SIGMA_MAX, SIGMA_MIN = humps().high, humps().low
BAND = 0.3

# In the other variable leading terms cancel on this problem: that measures more than the order.
TABLEAUX_IN = [
    (name, "log_sigma" if name in ("midpoint", "fehlberg2", "dormand_prince5") else "sigma")
    for name in TABLEAUX
]

# Where the first steps, of low order, leave no error: at sigma_max all but the linear part of D is
# off by less than rounding. So what is measured is the order of the steps after them.
FULL = {"lower_order_final": False}
LATE = [
    ("lms", {"order": 6}),
    ("deis", {"order": 6}),
    ("deis", {"order": 6, "variable": "t"}),
    ("dpmpp_km", {"eta": 0}),
    ("dpmpp_km", {"order": 6, "eta": 0}),
    ("velocity_adams", {"order": 3}),
    ("dpm_solver_multistep", {}),
    ("dpm_solver_multistep", {"order": 3}),
    ("dpm_solver_multistep", {"order": 3, "as_published": True}),
    ("stork4", {}),
    ("stork4", {"as_published": True}),
    ("scire2", {"m": 1}),
    ("reab", {"order": 3}),
    ("velocity_adams", {"order": 5}),
    ("reab", {"order": 4}),
    ("reab", {"order": 6}),
    ("unipc", {"order": 5}),
    ("unipc", {"order": 6, "corrector": False}),
    *[(f"sa_solver{again}", {"tau": 0}) for again in ("", "_pece")],
    *[
        (f"sa_solver{again}", {"tau": 0, "predictor_order": p, "corrector_order": c} | FULL)
        for again in ("", "_pece")
        for p, c in ((1, 0), (3, 0), (1, 1), (1, 2), (2, 2), (2, 3), (3, 4))
    ],
]
# `lower_order_final` is left out: it lowers the order of the last steps on purpose.
SOLVERS = {n: s for n, s in REGISTRY.items() if s.ode is not None and s.limit is None}
SETTINGS = [
    *[(n, dict(s.ode)) for n, s in SOLVERS.items() if (n, dict(s.ode)) not in LATE],
    *[("er_sde", {"scaler": "ode", "order": k}) for k in (1, 2)],
    ("seeds_2", {"eta": 0, "r": 0.3, "solver_type": "phi_2"}),
    ("seeds_3", {"eta": 0, "r_1": 0.4, "r_2": 0.8}),
    *[("euler_maruyama", {"eta": 0, "frame": frame}) for frame in ("ve", "vp")],
    ("reverse_diffusion", {"eta": 0, "frame": "vp"}),
    *[(name, {"order": k}) for name in ("lms", "ipndm") for k in (1, 2, 3, 4)],
    *[("deis", {"order": k, "variable": v}) for k in (1, 2, 3, 4) for v in ("t", "log_rho", "rho")],
    *[("unipc", {"order": k, "variant": v}) for k in (1, 2, 3, 4) for v in ("bh1", "bh2")],
    *[("unipc", {"order": k, "corrector": False}) for k in (1, 2, 3)],
    *[("unipc", {"order": k, "variant": "vary_coeff"}) for k in (1, 2)],
    *[("dpmpp_km", {"eta": 0, "order": k}) for k in (1, 2, 3)],
    *[("velocity_adams", {"order": k}) for k in (1, 2)],
    *[("reab", {"order": k}) for k in (1, 2)],
    ("reab", {"order": 3, "as_published": True}),
    *[("ipndm_v", {"order": k}) for k in (1, 2, 3, 4)],
    ("dpm_solver_multistep", {"order": 1}),
    ("dpm_solver_multistep", {"order": 2, "solver_type": "heun"}),
    ("stork2", {"stages": 5}),
    ("stork2", {"stages": 5, "as_published": True}),
    ("scire3", {"m": 1}),
    ("scire3", {"m": 1, "as_published": True}),
    ("dpmpp_2m", {"solver_type": "heun"}),
    ("dpmpp_2m_sde", {"eta": 0, "solver_type": "heun"}),
    ("dpmpp_3m", {"as_published": True}),
    ("dpmpp_3m_sde", {"eta": 0, "as_published": True}),
    *[("dpmpp_sde", {"eta": 0, "r": r}) for r in (0.25, 1.0)],
    *[("heunpp2", o) for o in ({"slopes": 2}, {"slopes": 5}, {"as_published": True})],
    *[("rk2", {"alpha": a, "variable": "log_sigma"}) for a in (0.25, 0.5, 1.0)],
    *[("res_2s", {"c2": c, "solver_type": k}) for c in (0.25, 1.0) for k in ("phi_1", "phi_2")],
    *[("res_3s", {"c2": a, "c3": b}) for a, b in ((1 / 3, 2 / 3), (0.25, 0.75), (0.4, 0.9))],
    ("dpm_solver_3", {"r1": 0.4, "r2": 0.8}),
    *[("dpmpp_singlestep", {"order": k}) for k in (1, 2, 3)],
    ("dpmpp_singlestep", {"order": 2, "solver_type": "phi_2"}),
    *[("runge_kutta", {"tableau": name, "variable": v}) for name, v in TABLEAUX_IN],
]


def exact(x: float, s: float, t: float) -> float:
    """The ODE's flow keeps quantiles: F_s(x_s) = F_t(x_t), in whichever tail is the smaller."""

    def tail(x: float, sigma: float, sign: int) -> float:
        return float(WEIGHTS @ ndtr(sign * (x - MEANS) / np.hypot(STDS, sigma)))

    sign = 1 if tail(x, s, 1) < 0.5 else -1
    quantile = tail(x, s, sign)
    return brentq(lambda y: tail(y, t, sign) - quantile, -50, 50, xtol=1e-15, rtol=1e-15)


def measured_order(name: str, options: dict) -> float:
    """As `kdiff certify` measures it: minus the slope of log mean |error| over log steps."""
    return orders.measure(REGISTRY[name], REGISTRY[name].with_defaults(options)).values["measured"]


def test_the_solution_that_orders_are_measured_against_is_scipys():
    ends = [exact(float(x), SIGMA_MAX, SIGMA_MIN) for x in humps().starts[0]]
    assert humps().ends[0].tolist() == pytest.approx(ends, rel=1e-13, abs=1e-14)


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=str)
def test_the_order_is_the_declared_one(name, options):
    declared = REGISTRY[name].order(REGISTRY[name].with_defaults(options))
    assert measured_order(name, options) == pytest.approx(declared, abs=BAND)


INSIDE = np.array([-1.2, -0.4, 0.5, 1.1])


def late(name: str):
    """x / (1 + sigma^2), D of N(0, 1), for REAB, which is exact on it, and 0 for all others; and
    what bends, at small sigma only."""
    unit = name == "reab"

    def denoise(x, sigma: float):
        return unit * x / (1 + sigma**2) + np.exp(-((sigma / 3) ** 2)) * np.sin(2 * x + 0.5)

    return denoise


@functools.cache
def late_end(name: str) -> np.ndarray:
    denoise, ends = late(name), (-np.log(SIGMA_MAX), -np.log(0.1))
    solution = solve_ivp(
        lambda u, x: denoise(x, np.exp(-u)) - x,
        ends,
        SIGMA_MAX * INSIDE,
        method="DOP853",
        rtol=1e-13,
        atol=1e-14,
    )
    return solution.y[:, -1]


@pytest.mark.parametrize(("name", "options"), LATE, ids=str)
def test_orders_once_there_is_a_history(name, options):
    errors = []
    for steps in (256, 512):
        grid = kdiff.schedule(
            "karras", steps, sigma_min=0.1, sigma_max=SIGMA_MAX, final="sigma_min"
        )
        walk = Walk(REGISTRY[name].start(SIGMA_MAX * INSIDE, grid, None, options))
        while walk.ask is not None:
            walk.answer(late(name)(walk.ask.x, walk.ask.sigma))
        errors.append(np.abs(walk.result - late_end(name)).mean())
    declared = REGISTRY[name].order(REGISTRY[name].with_defaults(options))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(declared, abs=BAND)


def test_every_sampler_and_every_order_option_is_measured():
    assert {name for name, _ in [*SETTINGS, *LATE]} == set(SOLVERS)
    for name, s in SOLVERS.items():
        measured = [s.with_defaults(options) for n, options in [*SETTINGS, *LATE] if n == name]
        orders = {options.get("order") for options in measured}
        if "order" in s.options:
            # Beyond 6, stability leaves nothing between too few steps and rounding: there,
            # test_coefficients has the coefficients.
            assert orders >= set(s.options["order"].choices or range(1, 4)), name


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
        ("dpmpp_km", 3, {"order": 4}),
        ("unipc", 3, {"order": 4, "corrector": False}),
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
    start = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    ends = torch.tensor([[exact(float(x), 1.0, SIGMA_MIN)] for x in start], dtype=torch.float64)
    grids = [
        kdiff.schedule("karras", n, sigma_min=SIGMA_MIN, sigma_max=1.0, final="sigma_min")
        for n in (512, 1024)
    ]
    coarse, fine = ((run(HUMPS, name, g, start, **options) - ends).abs().mean() for g in grids)
    assert float(torch.log2(coarse / fine)) == pytest.approx(order, abs=0.3)
