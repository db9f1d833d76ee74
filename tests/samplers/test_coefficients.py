"""The moment solver, against quadrature and the coefficients in textbooks."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from kdiff.samplers.adams import VARIABLES, adams_bashforth, combination
from kdiff.samplers.coefficients import coefficients, combine, moments, orders
from kdiff.samplers.exponential import exact_moments

NODES = [0.0, -0.7, -1.1, -3.2]
LONG = [0.0, -0.8, -1.5, -2.7, -3.6, -4.4, -5.9, -6.5, -7.2, -8.8]
# Adams-Bashforth
TEXTBOOK = [
    [1],
    [3 / 2, -1 / 2],
    [23 / 12, -16 / 12, 5 / 12],
    [55 / 24, -59 / 24, 37 / 24, -9 / 24],
]
# From a fine step to sigma 80 -> 1e-3 in one, and twice that, as it is with eta = 1.
STEP_SIZES = [1e-6, 0.1, 2.0, math.log(80e3), 2 * math.log(80e3)]


def integral(f, a: float = 0.0, b: float = 1.0) -> float:
    return quad(f, a, b, epsabs=0, epsrel=1e-13, limit=200)[0]


@pytest.mark.parametrize("h", STEP_SIZES)
def test_moments_against_quadrature(h):
    expected = [integral(lambda u, j=j: h * np.exp(h * (u - 1)) * u**j) for j in range(5)]
    assert moments(lambda u: h * np.exp(h * (u - 1)), 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("s", "t"), [(80.0, 79.9), (80.0, 1e-3), (2.0, 0.3)])
def test_exact_moments_in_closed_form(s, t, eta):
    """By parts: m_0 = 1 - e^-H and m_j = 1 - (j / H) m_(j-1), with H = (1 + eta) ln(s / t)."""
    h = (1 + eta) * math.log(s / t)
    m = exact_moments(s, t, 4, eta)
    assert m[0] == pytest.approx(-math.expm1(-h), rel=1e-13)
    # Where h is small, the recursion itself loses 1 / h per moment.
    expected = [1 - j / h * m[j - 1] for j in range(1, 4)]
    assert list(m[1:]) == pytest.approx(expected, abs=1e-13 / min(h, 1))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("h", STEP_SIZES)
def test_polynomials_are_integrated_exactly(k, h):
    m = moments(lambda u: h * np.exp(h * (u - 1)), k)
    c = coefficients(NODES[:k], m)
    assert sum(c) == pytest.approx(-math.expm1(-h), rel=1e-12)
    p = np.polynomial.Polynomial([2.0, -1.5, 0.7, 3.0][:k])
    expected = integral(lambda u: h * np.exp(h * (u - 1)) * p(u))
    assert combine(c, [p(u) for u in NODES]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", range(5, 11))
@pytest.mark.parametrize("h", [0.1, 2.0])
def test_high_polynomials_are_integrated_exactly(k, h):
    """As UniPC of order 9 needs it, whose corrector combines ten."""
    c = coefficients(LONG[:k], moments(lambda u: h * np.exp(h * (u - 1)), k))
    p = np.polynomial.Polynomial.fromroots(np.linspace(-2, 1.5, k - 1))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = (nodes + 1) / 2
    expected = float(weights / 2 @ (h * np.exp(h * (u - 1)) * p(u)))
    size = sum(abs(a * p(u)) for a, u in zip(c, LONG, strict=False))
    assert sum(c) == pytest.approx(-math.expm1(-h), rel=1e-7)
    assert combine(c, [p(u) for u in LONG]) == pytest.approx(expected, abs=1e-10 * size)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_polynomial_of_higher_degree_is_not(k):
    c = coefficients(NODES[:k], moments(np.ones_like, k))
    assert abs(combine(c, [u**k for u in NODES]) - 1 / (k + 1)) > 0.1


def test_coefficients_keep_the_order_of_the_nodes():
    m = moments(np.exp, 4)
    assert coefficients(NODES[::-1], m) == pytest.approx(coefficients(NODES, m)[::-1], rel=1e-13)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_adams_bashforth(k):
    assert adams_bashforth(k) == pytest.approx(TEXTBOOK[k - 1], rel=1e-13)


@pytest.mark.parametrize("k", range(1, 10))
def test_adams_bashforth_by_backward_differences(k):
    """sum_j gamma_j nabla^j with gamma_0 = 1, sum_(i <= j) gamma_i / (j + 1 - i) = 1 (Hairer,
    Norsett & Wanner 1993, III.1.7), in fractions."""
    gammas: list[Fraction] = []
    for j in range(k):
        gammas.append(1 - sum(g / (j + 1 - i) for i, g in enumerate(gammas)))
    expected = [
        float(sum(g * (-1) ** i * math.comb(j, i) for j, g in enumerate(gammas))) for i in range(k)
    ]
    assert adams_bashforth(k) == pytest.approx(expected, rel=1e-8)


def test_variable_step_adams_of_order_2():
    """(t - s) ((1 + r / 2) eps_0 - (r / 2) eps_1), r = (t - s) / (s - s_last)."""
    last, s, t = 5.0, 3.0, 0.5
    r = (t - s) / (s - last)
    expected = [(t - s) * (1 + r / 2), -(t - s) * r / 2]
    assert combination(*VARIABLES["rho"], [s, last], t) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "options", "order", "trapezoidal"),
    [("plms", {}, 4, True), *[("ipndm", {"order": k}, k, False) for k in (1, 2, 3, 4)]],
)
@pytest.mark.parametrize("sigmas", [[9.0, 7.0, 4.0, 2.5, 1.0, 0.5], [9.0, 7.0, 4.0, 1.0, 0.0]])
def test_plms_and_ipndm_by_hand(run, name, options, order, trapezoidal, sigmas):
    """Liu et al. 2022, eq. 12; PLMS starts with the mean of the slopes at both ends of a step."""

    def denoise(x, sigma):
        return torch.sin(x) / (1 + sigma)

    def slope(x, sigma):
        return (x - denoise(x, sigma)) / sigma

    x, slopes = torch.tensor([[5.0], [-8.0]], dtype=torch.float64), []
    found = run(denoise, name, sigmas, x, **options)
    for s, t in pairwise(sigmas):
        slopes = [slope(x, s), *slopes[: order - 1]]
        d = sum(c * e for c, e in zip(TEXTBOOK[len(slopes) - 1], slopes, strict=True))
        if trapezoidal and len(slopes) == 1:
            d = (slopes[0] + slope(x + (t - s) * slopes[0], t)) / 2
        x = x + (t - s) * d
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


def vp_time(sigma: float) -> float:
    """The root of 19.9 t^2 / 2 + 0.1 t = ln(1 + sigma^2)."""
    return max(np.roots([19.9 / 2, 0.1, -math.log1p(sigma**2)]))


@pytest.mark.parametrize("at", [[80.0], [79.0, 80.0], [2.5, 80.0], [0.5, 5.0, 80.0], [3, 7, 9, 20]])
@pytest.mark.parametrize("t", [1e-3, 0.45])
@pytest.mark.parametrize(
    ("name", "variable"), [("rho", lambda s: s), ("log_rho", math.log), ("t", vp_time)]
)
def test_deis_coefficients_are_integrals_of_lagrange_polynomials(name, variable, at, t):
    """Zhang & Chen 2023, eq. 15: c_i = integral of l_i over sigma. Also in steps over many octaves,
    where an error of t in the sum would be the noise that is left in the picture."""

    def lagrange(i: int, sigma: float) -> float:
        others = [variable(q) for j, q in enumerate(at) if j != i]
        u, u_i = variable(sigma), variable(at[i])
        return math.prod((u - q) / (u_i - q) for q in others)

    def over_log_sigma(i: int) -> float:
        return -integral(
            lambda u: math.exp(u) * lagrange(i, math.exp(u)), math.log(t), math.log(at[0])
        )

    c = combination(*VARIABLES[name], at, t)
    assert sum(c) == pytest.approx(t - at[0], abs=1e-8 * t)
    assert c == pytest.approx([over_log_sigma(i) for i in range(len(at))], rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([4, 3, 2, 1], 1), [1, 1, 1]),
        (([9, 8, 7, 6, 5, 4], 3), [1, 2, 3, 3, 3]),
        (([9, 8, 7, 6, 5, 4], 4), [1, 2, 3, 4, 4]),
        (([9, 8, 7, 6, 5, 0], 3), [1, 2, 3, 3, 1]),
        (([9, 8, 7, 6, 5, 4], 3, True), [1, 2, 3, 2, 1]),
        (([9, 8, 7, 6, 5, 0], 3, True), [1, 2, 3, 2, 1]),
        (([9, 8, 7, 6, 5, 4], 2, True), [1, 2, 2, 2, 1]),
        (([9, 8, 7], 4, True), [1, 1]),
        (([9, 0], 4), [1]),
        (([9, 1], 4), [1]),
    ],
)
def test_orders_warm_up_and_are_lowered(arguments, expected):
    assert orders(*arguments) == expected


def test_combine_uses_as_many_predictions_as_there_are_coefficients():
    assert combine([2.0, 3.0], [10.0, 100.0, 1000.0]) == 320.0
