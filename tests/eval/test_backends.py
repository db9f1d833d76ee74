"""kdiff's figures beside torchmetrics, clean-fid and torch-fidelity, for the same images and
weights."""

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

import kdiff
from kdiff.eval.backends import CannotRun, CleanFid, second_opinion, torch_fidelity_state
from kdiff.eval.evaluation import Collector
from kdiff.eval.features import feature_network
from kdiff.eval.features.inception_weights import find_weights, read_weights
from kdiff.eval.references import Reference, find_reference
from kdiff.images import to_uint8

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 40, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_features_are_clean_fids(mode):
    """Its resizer, one image at a time through Pillow or torch; its port of the network."""
    theirs = second_opinion("clean-fid", feature_network(resize=mode))
    assert isinstance(theirs, CleanFid)
    theirs.update(IMAGES)
    ours = feature_network(resize=mode)(IMAGES).pool
    np.testing.assert_allclose(np.concatenate(theirs.features), ours, atol=1e-4)


def test_what_cannot_run_says_why():
    with pytest.raises(CannotRun, match="only in a network of its own"):
        second_opinion("clean-fid", feature_network())
    with pytest.raises(CannotRun, match="torchmetrics cannot resize as clean"):
        second_opinion("torchmetrics", feature_network(resize="clean"))
    with pytest.raises(CannotRun, match="no feature network toy_network:features"):
        second_opinion("torchmetrics", feature_network("toy_network:features"))
    with pytest.raises(CannotRun, match="with antialiasing for all but FID"):
        second_opinion("torchmetrics", feature_network()).figure("kid", None)


@pytest.fixture(scope="module")
def made():
    """2,000 images of the packaged model."""
    labels = [i % 10 for i in range(2000)]
    return to_uint8(kdiff.sample(kdiff.load(), "dpmpp_2m", steps=4, n=2000, class_labels=labels))


def reference(mode):
    found = find_reference("cifar10", "inception", mode)
    assert isinstance(found, Reference)
    return found


def ours(images, mode):
    collector = Collector(["fid"], len(images), feature_network(resize=mode), reference(mode))
    collector.update(images, range(len(images)))
    return collector.figures()["FID"].value


def torch_fidelitys(images, tmp_path):
    torch.save(torch_fidelity_state(*read_weights(find_weights())), tmp_path / "weights.pth")
    network = FeatureExtractorInceptionV3(
        "theirs", ["2048"], feature_extractor_weights_path=str(tmp_path / "weights.pth")
    )
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        features = torch.cat([network(part)[0] for part in x.split(50)])
    real = reference("legacy_tensorflow")
    statistics = fid_features_to_statistics(features.double())
    known = {"mu": real.mean, "sigma": real.cov}
    return fid_statistics_to_metric(statistics, known, False)["frechet_inception_distance"]


@pytest.mark.slow
def test_fid_of_2000_images_is_theirs(made, tmp_path):
    """Three libraries, in the mode that each has of its own."""
    tensorflow = ours(made, "legacy_tensorflow")
    assert torch_fidelitys(made, tmp_path) == pytest.approx(tensorflow, rel=1e-4)
    for library, mode in (("torchmetrics", "legacy_tensorflow"), ("clean-fid", "clean")):
        theirs = second_opinion(library, feature_network(resize=mode))
        theirs.update(made)
        expected = tensorflow if mode == "legacy_tensorflow" else ours(made, mode)
        assert theirs.figure("fid", reference(mode)) == pytest.approx(expected, rel=1e-4), library
