"""The packaged classifier, judged by images whose class is known from elsewhere."""

import numpy as np
import pytest

import kdiff
from kdiff.eval.features import feature_network
from kdiff.images import to_uint8

NAME = "cifar10-classifier"


@pytest.fixture(scope="module")
def network():
    return feature_network(NAME)


@pytest.fixture(scope="module")
def made():
    """Images of the packaged model, and the classes that it was asked for."""
    labels = [i % 10 for i in range(50)]
    model = kdiff.load("cifar10")
    images = kdiff.sample(model, "dpmpp_2m", steps=8, seeds=range(50), class_labels=labels)
    return to_uint8(images), np.array(labels)


def test_it_sees_in_the_models_images_what_the_model_was_asked_for(network, made):
    images, labels = made
    assert (network(images).logits.argmax(1) == labels).mean() > 0.3  # 0.1 by chance


def test_features_do_not_depend_on_what_they_are_computed_with(network, made):
    images, _ = made
    together = network(np.concatenate([images, images]))
    np.testing.assert_array_equal(together.pool[50:], network(images).pool)
    np.testing.assert_array_equal(together.logits[53], network(images[3:4]).logits[0])


def test_what_it_is_is_said_with_the_figures(network, made):
    assert network.resize is None and len(network.weights) == 64
    assert network.label("FID") == f"FD ({NAME})"
    assert network(made[0]).pool.shape == (50, 336)


def test_other_sizes_are_refused(network):
    with pytest.raises(ValueError, match="takes images of 32 x 32, not 64 x 48"):
        network(np.zeros((1, 64, 48, 3), dtype=np.uint8))


def test_resize_is_refused():
    with pytest.raises(ValueError, match=f"are for inception, not for {NAME}"):
        feature_network(NAME, resize="clean")
