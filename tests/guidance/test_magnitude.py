"""Magnitude-aware guidance, against its formula in each space, and diffusers."""

import math

import pytest
import torch

from class_mixture import ClassMixture
from kdiff.guidance import cfg, magnitude_aware

X = torch.linspace(-4, 6, 96, dtype=torch.float64).reshape(3, 2, 4, 4)
LABELS = torch.tensor([0, 2, 1])
SPACES = {
    "denoised": lambda x, sigma, d: d,
    "noise": lambda x, sigma, d: (x - d) / sigma,
    "v": lambda x, sigma, d: (
        (x - d) / sigma / math.sqrt(1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * d
    ),
    "velocity": lambda x, sigma, d: (x - d) / sigma - d,
}


def both(sigma):
    return [ClassMixture()(X, sigma, labels) for labels in (LABELS, torch.full_like(LABELS, -1))]


def by_diffusers(guider, f_c, f_u):
    """Its norm takes two axes: those of tokens."""
    return guider.forward(f_c.flatten(2), f_u.flatten(2)).pred.reshape(f_c.shape)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 60.0])
@pytest.mark.parametrize("space", SPACES)
def test_the_formula(space, sigma):
    """diffusers' guider on what a network of the space predicts, and the paper's, by hand."""
    guiders = pytest.importorskip("diffusers.guiders")
    scale, alpha = 4.0, 0.3
    c, u = both(sigma)
    f_c, f_u = (SPACES[space](X, sigma, d) for d in (c, u))
    expected = []
    for i in range(len(X)):
        r = math.dist(f_c[i].flatten(), f_u[i].flatten()) / math.hypot(*f_u[i].flatten())
        expected.append(u[i] + (1 + (scale - 1) * math.exp(-alpha * r)) * (c[i] - u[i]))
    model = magnitude_aware(ClassMixture(), scale, alpha, space)
    found = model(X, sigma, class_labels=LABELS)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-10)
    ours = SPACES[space](X, sigma, found)
    theirs = by_diffusers(guiders.MagnitudeAwareGuidance(scale, alpha), f_c, f_u)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_defaults_are_those_of_diffusers():
    guiders = pytest.importorskip("diffusers.guiders")
    c, u = both(0.7)
    f_c, f_u = (SPACES["velocity"](X, 0.7, d) for d in (c, u))
    found = magnitude_aware(ClassMixture())(X, 0.7, class_labels=LABELS)
    ours = SPACES["velocity"](X, 0.7, found)
    theirs = by_diffusers(guiders.MagnitudeAwareGuidance(), f_c, f_u)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_without_alpha_it_is_classifier_free_guidance():
    found, expected = (
        model(X, 0.7, class_labels=LABELS)
        for model in (magnitude_aware(ClassMixture(), 3.0, 0.0), cfg(ClassMixture(), 3.0))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("alpha", [0.0, 8.0])
def test_what_is_zero_stays_finite(alpha):
    def model(x, sigma, class_labels):
        return 0 * x + (class_labels == 2)[:, None, None, None]

    model.classes = ("a", "b", "c")
    found = magnitude_aware(model, 10.0, alpha, "denoised")(X, 0.7, class_labels=LABELS)
    expected = 10.0 if alpha == 0 else 1.0  # u = 0: an infinite ratio, so w' = 1
    torch.testing.assert_close(found[1], torch.full_like(X[1], expected))
    assert not found[[0, 2]].any()
