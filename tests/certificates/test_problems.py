"""The exact answers of the certificates, against scipy and numpy."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import linregress

import kdiff
from kdiff.certificates.finding import line
from kdiff.certificates.problems import HUMPS, STANDARD, humps


def quantile(model, p, sigma):
    stds = np.hypot(model.stds, sigma)

    def above(x):
        return float(np.dot(model.weights, ndtr((x - np.array(model.means)) / stds))) - p

    return brentq(above, -500, 500, xtol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("sigma", [0.02, 80.0])
def test_quantiles_are_those_of_the_marginal(name, sigma):
    found = STANDARD[name].quantiles(8, sigma)[0]
    expected = [quantile(STANDARD[name], (i + 0.5) / 8, sigma) for i in range(8)]
    assert found.tolist() == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_the_flow_solves_the_ode():
    starts, low, high, ends = humps()

    def slope(sigma, x):
        x = torch.from_numpy(x)
        return ((x - HUMPS(x, sigma)) / sigma).numpy()

    at = starts[0, ::10]
    solved = solve_ivp(slope, (high, low), at.numpy(), rtol=1e-12, atol=1e-13, method="DOP853")
    np.testing.assert_allclose(ends[0, ::10], solved.y[:, -1], rtol=1e-9)


def test_the_denoiser_is_that_of_the_mixture():
    model = STANDARD["narrow"]
    exact = kdiff.analytic.GaussianMixture(
        *(torch.tensor(v).double() for v in ([[m] for m in model.means], model.stds, model.weights))
    )
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for sigma in (0.01, 0.7, 50.0):
        torch.testing.assert_close(model(x, sigma), exact(x[:, None], sigma)[:, 0])


def test_the_slope_and_its_error_are_scipys():
    x, y = [16, 32, 64, 128], [0.1, 0.026, 0.0061, 0.0016]
    found, known = line(x, y), linregress(np.log(x), np.log(y))
    assert (found.slope, found.error) == pytest.approx((known.slope, known.stderr))
