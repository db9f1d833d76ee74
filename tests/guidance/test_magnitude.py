"""Magnitude-aware guidance, against its formula in each space, and diffusers."""

import math

import pytest
import torch

from class_mixture import ClassMixture
from kdiff.guidance import cfg, magnitude_aware
from two_answers import SPACES, to_space

X = torch.linspace(-4, 6, 96, dtype=torch.float64).reshape(3, 2, 4, 4)
LABELS = torch.tensor([0, 2, 1])


def both(sigma):
    return [ClassMixture()(X, sigma, labels) for labels in (LABELS, torch.full_like(LABELS, -1))]


@pytest.fixture(params=SPACES)
def space(request):
    return request.param


@pytest.mark.parametrize("sigma", [0.05, 0.7, 60.0])
def test_the_formula(space, sigma):
    """With what a network of the space predicts, one sample after the other."""
    scale, alpha = 4.0, 0.3
    c, u = both(sigma)
    f_c, f_u = (to_space(space, X, sigma, d) for d in (c, u))
    expected = []
    for i in range(len(X)):
        r = math.dist(f_c[i].flatten(), f_u[i].flatten()) / math.hypot(*f_u[i].flatten())
        expected.append(u[i] + (1 + (scale - 1) * math.exp(-alpha * r)) * (c[i] - u[i]))
    model = magnitude_aware(ClassMixture(), scale, alpha, space)
    found = model(X, sigma, class_labels=LABELS)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [(), (4.0, 0.3)], ids=str)
def test_diffusers(space, settings):
    """Its guider, with its defaults too. Its norm takes two axes: those of tokens."""
    guiders = pytest.importorskip("diffusers.guiders")
    model = magnitude_aware(ClassMixture(), *settings, space=space)
    found = to_space(space, X, 0.7, model(X, 0.7, class_labels=LABELS))
    f_c, f_u = (to_space(space, X, 0.7, d).flatten(2) for d in both(0.7))
    theirs = guiders.MagnitudeAwareGuidance(*settings).forward(f_c, f_u).pred
    torch.testing.assert_close(found, theirs.reshape(X.shape), rtol=1e-5, atol=1e-5)


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
