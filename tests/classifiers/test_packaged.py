"""`cifar10-noisy`, on pictures of the packaged model of CIFAR-10: no data set comes with kdiff."""

import pytest
import torch

import kdiff
from kdiff.classifiers import load_classifier, packaged_classifiers
from kdiff.guidance.classifier_gradient import log_gradient

LABELS = torch.arange(20) % 10


@pytest.fixture(scope="module")
def classifier():
    return load_classifier("cifar10-noisy")


@pytest.fixture(scope="module")
def pictures():
    model = kdiff.load("cifar10")
    guide = "cfg:scale=2"  # typical of their classes
    return kdiff.sample(model, "dpmpp_2m", steps=5, n=20, class_labels=LABELS, guide=guide)


def log_loss(classifier, pictures, sigma):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    logits = classifier(pictures + sigma * noise, sigma)
    return float(torch.nn.functional.cross_entropy(logits, LABELS))


def test_it_is_small_and_for_the_packaged_models_classes(classifier):
    path = packaged_classifiers()["cifar10-noisy"]
    assert path.stat().st_size < 2_000_000
    model = kdiff.load("cifar10")
    assert classifier.classes == model.classes and classifier.shape == model.shape
    assert classifier.name == "cifar10-noisy" and path.with_suffix(".md").is_file()
    assert "cifar10-noisy" not in kdiff.models.packaged_models()


def test_it_recognises_pictures_and_the_more_noise_the_less_it_says(classifier, pictures):
    right = classifier(pictures, 0.01).argmax(1) == LABELS
    assert right.float().mean() > 0.6
    losses = [log_loss(classifier, pictures, sigma) for sigma in (0.05, 0.5, 2.0, 10.0, 80.0)]
    assert losses == sorted(losses)
    assert losses[0] < 1.2
    assert losses[-1] == pytest.approx(2.303, abs=0.05)  # ln 10: it knows nothing


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_a_step_along_its_gradient_makes_the_class_more_likely_by_as_much_as_it_says(
    classifier, pictures, sigma
):
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x = pictures[:4] + sigma * noise
    slope = log_gradient(classifier, x, sigma, LABELS[:4])
    step = 0.003 / slope.square().flatten(1).sum(1)  # expected to add 0.003 to log p
    moved = x + step[:, None, None, None] * slope
    before, after = (
        classifier(at, sigma).log_softmax(1)[range(4), LABELS[:4]] for at in (x, moved)
    )
    torch.testing.assert_close(after - before, torch.full((4,), 0.003), rtol=0.1, atol=0)


def test_guidance_makes_the_model_without_classes_draw_them(classifier):
    model = kdiff.load("cifar10")
    labels = LABELS[:10]
    arguments = {"steps": 6, "class_labels": labels, "n": 10}
    guide = "classifier:scale={}:conditional=false"
    free, guided = (
        kdiff.sample(model, "dpmpp_2m", guide=guide.format(scale), **arguments) for scale in (0, 8)
    )
    hits = [(classifier(x, 0.01).argmax(1) == labels).float().mean() for x in (free, guided)]
    assert hits[0] < 0.3 and hits[1] > 0.5  # one in ten by chance
