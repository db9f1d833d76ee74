"""Rescaled guidance."""

import numpy as np
import pytest
import torch

from kdiff.guidance import guide, guided
from two_answers import LABELS, SIGMAS, SPACES, from_space, inputs, to_space


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("phi", [0.3, 1.0])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_formula(sigma, phi, space):
    """With NumPy, one sample after the other."""
    model, x, c, u = inputs(sigma)
    around = guided(model, ["cfg:scale=5", f"rescale:phi={phi}:space={space}"])
    found = around(x, sigma, class_labels=LABELS)
    c, g = (to_space(space, x, sigma, d).numpy() for d in (c, u + 5 * (c - u)))
    rescaled = [g * (1 + phi * (np.std(c) / np.std(g) - 1)) for g, c in zip(g, c, strict=True)]
    expected = from_space(space, x, sigma, torch.from_numpy(np.stack(rescaled)))
    torch.testing.assert_close(found, expected)
    assert model.calls == [(6, sigma)] and around.evaluations(sigma) == 2  # c is known


def test_with_all_of_it_the_spread_is_that_of_c():
    sigma = 2.0
    model, x, c, _ = inputs(sigma)
    around = guided(model, ["cfg:scale=9", "rescale:phi=1"])
    found = around(x, sigma, class_labels=LABELS)
    spreads = [to_space("v", x, sigma, d).flatten(1).std(1) for d in (found, c)]
    torch.testing.assert_close(*spreads)


def test_what_is_zero_stays_zero():
    """Zero-init inside: there is no spread to rescale."""
    model, x, *_ = inputs(3.0)
    inside = guide(model, "cfg_zero:zero_above=1")
    around = guide(inside, "rescale:space=velocity")
    found = around(x, 3.0, class_labels=LABELS)
    torch.testing.assert_close(found, inside(x, 3.0, class_labels=LABELS))
    assert around.evaluations(3.0) == 1


@pytest.mark.parametrize(("scale", "evaluations"), [(0, 2), (1, 1), (2, 2)])
def test_c_is_asked_for_where_the_guidance_inside_does_not(scale, evaluations):
    model, x, c, _ = inputs(1.0)
    around = guided(model, [f"cfg:scale={scale}", "rescale"])
    found = around(x, 1.0, class_labels=LABELS)
    assert around.evaluations(1.0) == evaluations == sum(n for n, _ in model.calls) / 3
    if scale == 1:
        torch.testing.assert_close(found, c)


def test_none_of_it_has_the_bits_and_the_cost_of_what_is_inside():
    model, x, *_ = inputs(1.0)
    inside = guide(model, "cfg:scale=0")
    around = guide(inside, "rescale:phi=0")
    assert torch.equal(around(x, 1.0, class_labels=LABELS), inside(x, 1.0, class_labels=LABELS))
    assert around.evaluations(1.0) == 1
    with pytest.raises(ValueError, match="space must be denoised or noise or v or velocity"):
        guide(model, "rescale:space=latent")
