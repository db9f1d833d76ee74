"""References made of images, and whether a network may be compared with them."""

import numpy as np

from kdiff.eval.features import FeatureNetwork, Features
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.references import check_comparable, make_reference
from toy_references import IMAGES, WEIGHTS, find, gaussian, network, reference, refused, toy

# Images


def test_images_are_returned_as_images(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    found = find(tmp_path / "x.npz")
    assert isinstance(found, Pictures) and len(found) == 40
    assert isinstance(find(f"{tmp_path / 'x.npz'}:arr_0"), Pictures)
    (tmp_path / "empty").mkdir()
    refused(lambda: find(tmp_path / "empty"), "has no images")


def test_made_statistics_are_those_of_the_features(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    pictures, told = open_pictures(tmp_path / "x.npy"), []
    made = make_reference("mine", pictures, network(), 7, told.append, spatial=True, rows=True)
    rows = toy(IMAGES).astype(np.float64)
    np.testing.assert_allclose(made.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.cov, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-15)
    squares = toy(IMAGES)[:, :5].astype(np.float32) ** 2
    np.testing.assert_allclose(
        made.spatial_gaussian.cov, np.cov(squares.astype(np.float64), rowvar=False), rtol=1e-9
    )
    np.testing.assert_array_equal(made.rows, toy(IMAGES))
    assert told == [7, 7, 7, 7, 7, 5]
    assert (made.n, made.gaussian.n, made.features, made.resize) == (40, 40, "toy", None)
    assert made.weights == WEIGHTS and made.source.endswith("x.npy") and made.created
    bare = FeatureNetwork("bare", None, "", lambda images: Features(toy(images)))
    refused(lambda: make_reference("a", pictures, bare, spatial=True), "no spatial features")


# Comparing


def test_other_networks_modes_and_weights_are_refused():
    inception = network("inception", "clean")
    assert check_comparable(reference(), inception) == []
    other = reference(resize="legacy_tensorflow")
    refused(lambda: check_comparable(other, inception), "resize mode legacy_tensorflow", "clean")
    refused(lambda: check_comparable(reference(weights="f" * 64), inception), "weights fff")
    refused(lambda: check_comparable(reference(), network()), "feature network inception", "toy")
    toys = reference(features="toy", resize=None)
    assert check_comparable(toys, network()) == []


def test_what_is_unknown_is_assumed_and_said(tmp_path):
    np.savez(tmp_path / "x.npz", mu=gaussian().mean, sigma=gaussian().cov)
    (warning,) = check_comparable(find(tmp_path / "x.npz"), network("inception", "clean"))
    assert warning == (
        "x.npz does not record its feature network, resize mode, weights, number of images: "
        "taken as inception (clean)"
    )
    (warning,) = check_comparable(reference(weights=None), network("inception", "clean"))
    assert "does not record its weights:" in warning
