"""The check of a model's health: on its own noise, and on images."""

import numpy as np
import pytest
import torch

import kdiff
from kdiff.model_check import health
from kdiff.networks import SongUNet
from tiny_models import MEAN, STD, TINY, images


def exact(prediction, seen_as, data_mean=MEAN):
    """The exact network of one kind for Gaussian images, read as another kind."""
    gaussian = kdiff.analytic.gaussian(torch.full((3, 8, 8), data_mean), STD)
    levels = kdiff.precond(prediction)

    def network(x, t):
        sigma = levels.sigmas[int(t[0])]
        c = levels(sigma)
        x = x / c.c_in
        return (gaussian(x, sigma) - c.c_skip * x) / c.c_out

    return kdiff.wrap(network, seen_as, shape=(3, 8, 8), round=True)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_network_that_is_read_rightly_denoises(prediction):
    model = exact(prediction, prediction)
    alone = health(model)
    assert alone.status == "unknown" and "nothing speaks against it" in alone.verdict
    found = health(model, images())
    # The exact denoiser of Gaussian data is the guess, but for the pictures' clipping and mean.
    for error, guess in zip(found.images.model, found.images.guess, strict=True):
        assert error == pytest.approx(guess, rel=0.1)


@pytest.mark.parametrize(
    "prediction, seen_as", [("v", "eps"), ("x0", "eps"), ("eps", "x0"), ("v", "x0"), ("eps", "v")]
)
@pytest.mark.parametrize("on_images", [False, True])
def test_a_network_that_is_read_wrongly_is_not_and_what_it_is_is_said(
    prediction, seen_as, on_images
):
    found = health(exact(prediction, seen_as), images() if on_images else None)
    assert found.status in (("bad", "doubtful") if on_images else ("bad",))
    if not on_images:  # on images the guess is as good as these networks
        assert f"load it with prediction={prediction!r}" in found.verdict


def test_a_network_that_is_not_finite_is_bad():
    model = kdiff.wrap(lambda x, t: x * float("nan"), "flow", shape=(3, 8, 8))
    assert health(model).status == "bad"


def test_images_of_another_size_are_refused():
    with pytest.raises(
        ValueError, match=r"the images are \[3, 8, 8\], the model's are \[3, 16, 16\]"
    ):
        health(kdiff.wrap(lambda x, t: x, shape=(3, 16, 16)), images())


def test_grey_models_see_the_mean_of_the_channels():
    model = kdiff.wrap(lambda x, t: 0 * x, "denoised", shape=(1, 8, 8))
    grey = images().mean(-1) / 127.5 - 1
    found = health(model, images())
    assert found.images.model[0] == pytest.approx(float(np.sqrt((grey**2).mean())), rel=1e-5)


def test_a_network_that_is_not_trained_yet():
    """EDM's preconditioner alone is as good as the guess."""
    torch.manual_seed(0)
    found = health(kdiff.Denoiser(SongUNet(**TINY), "edm", shape=(3, 8, 8)))
    assert found.status == "bad" and "before they are trained" in found.verdict


def test_images_of_one_colour():
    found = health(exact("eps", "eps"), np.zeros((4, 8, 8, 3), np.uint8))
    assert all(guess > 0 for guess in found.images.guess)
