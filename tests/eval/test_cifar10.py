"""What needs CIFAR-10 itself, such as its published FID: pytest -m data --data=FOLDER."""

import sys

import numpy as np
import pytest

from kdiff.eval.evaluation import Collector, stream
from kdiff.eval.features import feature_network
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.references import Reference, find_reference
from places import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from training_data import load_cifar10

pytestmark = pytest.mark.data


@pytest.fixture
def data(request):
    """Where CIFAR-10 is, or will be."""
    return request.config.getoption("--data")


def test_train_against_test_is_the_published_fid(data):
    """3.1508 for all 50,000 and 10,000 images (pytorch-gan-metrics' README)."""
    network, test = feature_network(), open_pictures("cifar10:test", data)
    reference = find_reference("cifar10", "inception", "legacy_tensorflow")
    assert isinstance(reference, Reference) and len(test) == 10_000
    collector = Collector(["fid"], len(test), network, reference)
    stream(test, 100, [collector.update])
    assert collector.figures()["FID"].value == pytest.approx(3.1508, abs=0.01)


def test_the_small_classifier_knows_the_test_images_and_how_well(data):
    network, test = feature_network("cifar10-classifier"), open_pictures("cifar10:test", data)
    _, labels = load_cifar10(data, train=False)
    logits = np.concatenate([network(images).logits for images in test.batches(500)])
    assert (logits.argmax(1) == labels).mean() >= 0.92
    # Calibrated: on average it is right as often as it says (15 bins, Guo et al. 2017, eq. 3).
    odds = np.exp(logits - logits.max(1, keepdims=True))
    sure = (odds / odds.sum(1, keepdims=True)).max(1)
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = np.bincount(bins, weights=(logits.argmax(1) == labels) - sure, minlength=15)
    assert np.abs(gaps).sum() / len(labels) < 0.02
