"""Parity with the guiders of the installed diffusers, in the space that each works in: they get
predictions of a network of that space, and we get D."""

from itertools import pairwise

import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import guided
from two_answers import LABELS, SHAPE, SPACES, from_space, inputs, to_space

guiders = pytest.importorskip("diffusers.guiders")

SIGMAS = (0.7, 3.0, 60.0)
each_space = pytest.mark.parametrize("space", SPACES)
each_sigma = pytest.mark.parametrize("sigma", SIGMAS)
GRID = [20.0, 5.0, 1.5, 0.5, 0.1, 0.0]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def both(guider, guides, sigma, space, step=0):
    """What ours and theirs predict in this space."""
    model, x, c, u = inputs(sigma)
    d = guided(model, guides)(x, sigma, class_labels=LABELS)
    guider.set_state(step, 10, 0)
    guider.prepare_inputs({"cond": (c, u)})
    theirs = guider.forward(*(to_space(space, x, sigma, one) for one in (c, u))).pred
    return to_space(space, x, sigma, d), theirs


@each_space
@each_sigma
@pytest.mark.parametrize("phi", [0.3, 1.0])
def test_rescale(sigma, space, phi):
    guider = guiders.ClassifierFreeGuidance(5.0, phi)
    close(*both(guider, ["cfg:scale=5", f"rescale:phi={phi}:space={space}"], sigma, space))


@each_space
@each_sigma
def test_zero_star(sigma, space):
    guider = guiders.ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=1)
    close(*both(guider, f"cfg_zero:scale=5:space={space}", sigma, space, step=1))
    zero = both(guider, f"cfg_zero:scale=5:space={space}:zero_above=0.5", sigma, space, step=0)
    close(*zero)
    assert (zero[1] == 0).all()


@each_space
@each_sigma
def test_tangential(sigma, space):
    guider = guiders.TangentialClassifierFreeGuidance(5.0)
    close(*both(guider, f"tcfg:scale=5:space={space}", sigma, space))


@each_sigma
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("norm", [0.0, 0.5, 15.0])
def test_projected(sigma, eta, norm):
    """With the paper's formulation, in which their scale is our w - 1."""
    guider = guiders.AdaptiveProjectedGuidance(
        4.0,
        adaptive_projected_guidance_rescale=norm,
        eta=eta,
        use_original_formulation=True,
    )
    close(*both(guider, f"apg:scale=5:eta={eta}:norm={norm}", sigma, "denoised"))


@pytest.mark.parametrize("momentum", [-0.75, 0.4])
@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_projected_with_momentum_over_a_run(momentum, norm):
    guider = guiders.AdaptiveProjectedGuidance(
        4.0,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_rescale=norm,
        eta=0.3,
        use_original_formulation=True,
    )
    model = ClassMixture(SHAPE)
    x = GRID[0] * kdiff.Noise([0, 1, 2], SHAPE, torch.float64).initial()
    for i, (s, t) in enumerate(pairwise(GRID)):
        guider.set_state(i, len(GRID) - 1, s)
        c, u = model(x, s, LABELS), model(x, s)
        guider.prepare_inputs({"cond": (c, u)})
        x = x + (t - s) * (x - guider.forward(c, u).pred) / s
    found = kdiff.sample(
        model,
        "euler",
        sigmas=GRID,
        n=3,
        class_labels=LABELS,
        dtype=torch.float64,
        edits=f"apg:scale=5:eta=0.3:norm={norm}:momentum={momentum}",
    )
    close(found, x)


@each_space
def test_predictions_become_d_and_back(space):
    """The translation of this file, with which that of kdiff is compared."""
    _, x, c, _ = inputs(3.0)
    torch.testing.assert_close(from_space(space, x, 3.0, to_space(space, x, 3.0, c)), c)
