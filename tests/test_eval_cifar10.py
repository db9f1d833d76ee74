"""The published figure of CIFAR-10 itself: pytest -m data --data FOLDER."""

import pytest

from kdiff.eval.evaluation import Collector, stream
from kdiff.eval.features import feature_network
from kdiff.eval.pictures import open_pictures
from kdiff.eval.references import Reference, find_reference

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
