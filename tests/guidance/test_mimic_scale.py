"""Guidance in the range of another scale, against the extension's rule, channel by channel."""

import numpy as np
import pytest
import torch

from class_mixture import ClassMixture
from kdiff.guidance import cfg, mimic

X = torch.linspace(-4, 6, 96, dtype=torch.float64).reshape(3, 2, 4, 4)
LABELS = torch.tensor([0, 2, 1])


def by_hand(scale, other, percentile, sigma):
    c, u = (
        ClassMixture()(X, sigma, labels).numpy() for labels in (LABELS, torch.full_like(LABELS, -1))
    )
    guided, like = u + scale * (c - u), u + other * (c - u)
    for channel, model in zip(guided.reshape(6, -1), like.reshape(6, -1), strict=True):
        away = channel - channel.mean()
        widest = abs(model - model.mean()).max()
        bound = max(widest, np.quantile(abs(away), percentile))
        channel[:] = channel.mean() + np.clip(away, -bound, bound) / bound * widest
    return torch.tensor(guided)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 60.0])
@pytest.mark.parametrize(
    ("scale", "other", "percentile"),
    [(15.0, 7.0, 1.0), (15.0, 7.0, 0.8), (3.0, 7.0, 0.9), (1.0, 7.0, 1.0), (5.0, 0.0, 0.0)],
)
def test_the_formula(scale, other, percentile, sigma):
    found = mimic(ClassMixture(), scale, other, percentile)(X, sigma, class_labels=LABELS)
    expected = by_hand(scale, other, percentile, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_its_range_is_that_of_the_other_scale():
    """The widest distance from the mean of each channel."""
    found, plain, like = (
        model(X, 0.7, class_labels=LABELS).flatten(2)
        for model in (mimic(ClassMixture(), 30.0, 7.0), *(cfg(ClassMixture(), w) for w in (30, 7)))
    )
    widths = [(d - d.mean(2, keepdim=True)).abs().amax(2) for d in (found, plain, like)]
    torch.testing.assert_close(widths[0], widths[2])
    assert (widths[1] > widths[2]).all()
    torch.testing.assert_close(found.mean(2), plain.mean(2))


def test_equal_scales_are_classifier_free_guidance():
    found, expected = (
        model(X, 0.7, class_labels=LABELS)
        for model in (mimic(ClassMixture(), 7.0, 7.0), cfg(ClassMixture(), 7.0))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("percentile", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 4, 4), (3,), (3, 5)], ids=str)
def test_channels_of_one_value_stay_as_they_are(shape, percentile):
    def flat(x, sigma, class_labels):
        return 0 * x + class_labels.reshape(-1, *[1] * len(shape))

    flat.classes = ("a", "b", "c")
    x = torch.zeros(3, *shape, dtype=torch.float64)
    found, expected = (
        model(x, 0.7, class_labels=LABELS)
        for model in (mimic(flat, 15.0, 7.0, percentile), cfg(flat, 15.0))
    )
    torch.testing.assert_close(found, expected)
