"""The exact denoisers, against quadrature and a general ODE solver."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

import kdiff
from kdiff.analytic import GaussianMixture, data_set, gaussian, gaussian_solution


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


MEANS, STDS, WEIGHTS = [-1.0, 0.5, 2.0], [0.3, 0.6, 0.2], [0.2, 0.5, 0.3]
MIXTURE = GaussianMixture(tensor(MEANS)[:, None], tensor(STDS), tensor(WEIGHTS))


def normal(x: float, mean: float, std: float) -> float:
    return math.exp(-(((x - mean) / std) ** 2) / 2) / std


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("x", [-2.0, 0.1, 1.3])
def test_a_mixture_against_quadrature(x, sigma):
    """E[x0 | x] = integral x0 p(x0) N(x; x0, sigma^2) over that without the x0."""

    def moment(power: int) -> float:
        def integrand(x0: float) -> float:
            prior = sum(w * normal(x0, m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True))
            return x0**power * prior * normal(x, x0, sigma)

        return quad(integrand, -6, 6, points=[*MEANS, x], epsabs=0, epsrel=1e-11, limit=500)[0]

    found = MIXTURE(tensor([[x]]), sigma).item()
    assert found == pytest.approx(moment(1) / moment(0), rel=1e-8)


def test_equal_weights_are_the_default():
    equal = GaussianMixture(tensor(MEANS)[:, None], tensor(STDS))
    given = GaussianMixture(tensor(MEANS)[:, None], tensor(STDS), tensor([1 / 3] * 3))
    x = tensor([[0.3], [-2.0]])
    torch.testing.assert_close(equal(x, 0.7), given(x, 0.7), rtol=1e-14, atol=0)


def test_dimensions_share_their_component():
    """For two blobs in the plane, the posterior weights follow from the densities in the plane."""
    model = GaussianMixture(tensor([[1.0, 1.0], [-1.0, -1.0]]), tensor([0.5, 0.9]))
    x, sigma = tensor([0.4, -0.1]), 1.2
    parts = [(tensor([1.0, 1.0]), 0.5), (tensor([-1.0, -1.0]), 0.9)]
    r = [
        math.prod(normal(u, m, math.hypot(std, sigma)) for u, m in zip(x, mean, strict=True))
        for mean, std in parts
    ]
    d = [(sigma**2 * mean + std**2 * x) / (sigma**2 + std**2) for mean, std in parts]
    expected = (r[0] * d[0] + r[1] * d[1]) / sum(r)
    torch.testing.assert_close(model(x[None], sigma)[0], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("s", "t"), [(20.0, 0.02), (3.0, 1.0), (0.5, 8.0)])
def test_the_solution_for_a_gaussian_against_an_ode_solver(s, t):
    """dx / dsigma = (x - D) / sigma."""
    mean, std = tensor([0.7, -0.2]), 0.5
    model = gaussian(mean, std)
    start = mean + s * tensor([1.0, -0.6])

    def slope(log_sigma: float, x: np.ndarray) -> np.ndarray:
        return x - model(tensor([list(x)]), math.exp(log_sigma))[0].numpy()

    solved = solve_ivp(
        slope, (math.log(s), math.log(t)), start.numpy(), "DOP853", rtol=1e-12, atol=1e-13
    )
    found = gaussian_solution(mean, std, start, s, t)
    np.testing.assert_allclose(found, solved.y[:, -1], rtol=1e-9)


def test_gaussian_denoiser_by_hand():
    """(sigma^2 mean + std^2 x) / (sigma^2 + std^2)."""
    found = gaussian(tensor([1.0]), 0.5)(tensor([[3.0]]), 1.0)
    assert found.item() == pytest.approx((1.0 + 0.25 * 3) / 1.25, rel=1e-14)


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_samples_of_a_data_set_are_its_points(shape):
    points = kdiff.Noise(range(5), shape, torch.float64).initial()
    x = kdiff.sample(data_set(points), "heun", steps=30, n=16, dtype=torch.float64)
    assert x.shape == (16, *shape)
    distances = torch.cdist(x.flatten(1), points.flatten(1))
    assert distances.min(1).values.max() < 1e-6
    assert len(distances.argmin(1).unique()) > 2
    listed = kdiff.sample(data_set(list(points)), "heun", steps=30, n=16, dtype=torch.float64)
    assert torch.equal(x, listed)


def test_a_data_set_far_and_near():
    points = tensor([[1.0], [-1.0]])
    model = data_set(points)
    assert model(tensor([[0.8]]), 1e-3).item() == 1.0
    # tanh(x / sigma^2), here near its tangent
    assert model(tensor([[30.0]]), 100.0).item() == pytest.approx(math.tanh(30 / 1e4), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_is_that_of_x(dtype):
    x = tensor([[0.3], [-2.0]])
    found = MIXTURE(x.to(dtype), 0.7)
    assert found.dtype is dtype
    torch.testing.assert_close(
        found.double(), MIXTURE(x, 0.7), rtol=8 * torch.finfo(dtype).eps, atol=0
    )
