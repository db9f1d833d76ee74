"""Data of any shape: samplers, models and conditions do not care what the axes mean."""

import math

import pytest
import torch

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY

SHAPES = {
    "scalars": (),
    "vectors": (12,),
    "tokens, channels last": (4, 3),
    "audio": (1, 12),
    "points": (4, 3),
    "video": (2, 3, 2, 1),
    "one number": (1,),
    "a batch axis of two": (2, 6),
}
STEPS = 4


def mixture(shape):
    """Two components. All is in float64, so that rounding hides nothing."""
    size = math.prod(shape)
    means = torch.linspace(-1, 1, 2 * size, dtype=torch.float64).reshape(2, *shape)
    return GaussianMixture(means, torch.tensor([0.3, 0.5], dtype=torch.float64))


def wrapped(shape):
    return kdiff.wrap(mixture_of_batches(shape), "denoised", shape=shape)


def mixture_of_batches(shape):
    exact = mixture(shape)
    return lambda x, sigma: exact(x, float(sigma[0]))


def sampled(model, name, shape, **more):
    keywords = {"steps": STEPS, "sigma_min": 0.01, "sigma_max": 20.0, "dtype": torch.float64}
    return kdiff.sample(model, name, n=3, shape=shape, **keywords, **more)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_shape_is_only_a_view_of_as_many_numbers(name):
    """The mixture knows no axes, and noise comes in one order: so neither may a sampler."""
    for shape in dict.fromkeys(SHAPES.values()):
        flat = (math.prod(shape),)
        expected = sampled(mixture(flat), name, flat)
        for model in (mixture(shape), wrapped(shape)):
            made = sampled(model, name, shape)
            assert made.shape == (3, *shape) and made.dtype == torch.float64
            torch.testing.assert_close(made.reshape(3, *flat), expected, rtol=1e-9, atol=1e-9)
