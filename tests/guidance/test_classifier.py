"""Classifier guidance on a mixture of Gaussians whose noisy classifier is known exactly."""

from itertools import pairwise

import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import guide

MIXTURE = ClassMixture()
LABELS = torch.tensor([0, 1, 2, 1])
SIGMAS = (0.05, 0.7, 3.0, 40.0)


def exact(x, sigma):
    return MIXTURE.log_posterior(x, sigma)


def drawn(sigma, n=4):
    """From the mixture itself, so that no class is out of the question."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, n, *MIXTURE.shape, generator=generator, dtype=torch.float64)
    return 0.5 * noise[0] + sigma * noise[1]


class Unconditional:
    """The mixture as a model that has no classes."""

    name, shape, sigma_min, sigma_max = "plain", MIXTURE.shape, 0.002, 80.0

    def __call__(self, x, sigma):
        return MIXTURE(x, sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("model", [Unconditional(), MIXTURE], ids=["no classes", "classes"])
def test_the_exact_gradient_makes_the_denoiser_of_the_class(model, sigma):
    x = drawn(sigma)
    guided = guide(model, "classifier", classifier=exact, scale=1, conditional=False)
    found = guided(x, sigma, class_labels=LABELS)
    expected = MIXTURE.of_classes(x, sigma)[range(4), LABELS]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_scale_multiplies_the_gradient_and_a_conditional_model_is_sharpened(sigma):
    x = drawn(sigma)
    c, u = MIXTURE(x, sigma, LABELS), MIXTURE(x, sigma)
    found = guide(MIXTURE, "classifier", classifier=exact, scale=2.5)
    expected = c + 2.5 * (c - u)  # the gradient is that of classifier-free guidance
    got = found(x, sigma, class_labels=LABELS)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("s", "t"), [(3.0, 1.0), (0.7, 0.6), (0.05, 0.0)])
def test_the_mean_shift_is_the_variance_of_the_step_times_the_gradient(s, t):
    x, w = drawn(s), 1.7
    guided = guide(MIXTURE, "classifier_mean_shift", classifier=exact, scale=w)
    d = guided(x, s, class_labels=LABELS, step=kdiff.guidance.Step(0, s, t))
    c, u = MIXTURE(x, s, LABELS), MIXTURE(x, s)
    gradient = (c - u) / s**2
    mean, variance = (t / s) ** 2 * x + (1 - (t / s) ** 2) * c, t**2 * (s**2 - t**2) / s**2
    shifted = mean + w * variance * gradient
    found = (t / s) ** 2 * x + (1 - (t / s) ** 2) * d
    torch.testing.assert_close(found, shifted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddim"])
def test_a_run_takes_the_shifted_steps(sampler):
    grid, labels = [3.0, 1.0, 0.2, 0.0], [0, 2]
    run = {"sigmas": grid, "seeds": [4, 5], "options": {"eta": 1.0}, "dtype": torch.float64}
    guided = guide(Unconditional(), "classifier_mean_shift", classifier=exact, scale=1)
    found = kdiff.sample(guided, sampler, class_labels=labels, **run)
    steps = iter(pairwise(grid))

    def expected(x, sigma, class_labels):
        s, t = next(steps)
        c, u = MIXTURE(x, s, class_labels), MIXTURE(x, s)
        return u + (t / s) ** 2 * (c - u)

    by_hand = kdiff.sample(expected, sampler, class_labels=labels, shape=MIXTURE.shape, **run)
    torch.testing.assert_close(found, by_hand, rtol=1e-8, atol=1e-8)


def test_the_mean_shift_is_refused_where_steps_are_not_ddpms():
    for sampler, options in (("heun", {}), ("euler", {}), ("ddim", {"eta": 0.5})):
        guided = guide(MIXTURE, "classifier_mean_shift", classifier=exact)
        with pytest.raises(ValueError, match="mean shift of DDPM's steps: sample with euler_anc"):
            kdiff.sample(guided, sampler, steps=3, class_labels=[1], options=options)


def test_samples_of_no_class_are_not_guided_and_no_class_at_all_is_an_error():
    x = drawn(1.0)
    guided = guide(MIXTURE, "classifier", classifier=exact, scale=3)
    labels = torch.tensor([1, -1, 2, -1])
    found = guided(x, 1.0, class_labels=labels)
    plain = MIXTURE(x, 1.0, labels)
    assert torch.equal(found[1::2], plain[1::2]) and not torch.equal(found[::2], plain[::2])
    with pytest.raises(ValueError, match="classifier guidance needs class_labels"):
        guided(x, 1.0)


def test_a_model_without_classes_gets_those_of_the_classifier():
    def named(x, sigma):
        return exact(x, sigma)

    named.classes = ("zero", "one", "two")
    guided = guide(Unconditional(), "classifier", classifier=named)
    assert guided.classes == named.classes
    twice = guide(guided, "classifier", classifier=named)  # both are told the class
    x = drawn(1.0)
    c, u = MIXTURE(x, 1.0, LABELS), MIXTURE(x, 1.0)
    expected = u + 2 * (c - u)
    torch.testing.assert_close(twice(x, 1.0, class_labels=LABELS), expected)
    with pytest.raises(ValueError, match="class_labels must be whole numbers from -1"):
        kdiff.sample(guided, "euler", steps=2, class_labels=[3])


def test_scale_0_has_the_bits_of_the_model():
    x = drawn(1.0)
    found = guide(MIXTURE, "classifier", classifier=exact, scale=0)(x, 1.0, class_labels=LABELS)
    assert torch.equal(found, MIXTURE(x, 1.0, LABELS))


def test_it_works_in_inference_mode_and_leaves_no_gradients_behind():
    with torch.inference_mode():
        x = drawn(1.0)
        guided = guide(MIXTURE, "classifier", classifier=exact)
        found = guided(x, 1.0, class_labels=LABELS)
    assert not found.requires_grad
    assert torch.equal(found, guided(drawn(1.0), 1.0, class_labels=LABELS))


def test_a_guided_run_can_itself_be_differentiated():
    guided = guide(Unconditional(), "classifier", classifier=exact, scale=1)
    x = drawn(1.0)[:2].requires_grad_()
    torch.autograd.gradcheck(lambda x: guided(x, 1.0, class_labels=LABELS[:2]), x)


# --- bad inputs ---


def refused(classifier, match, model=MIXTURE):
    with pytest.raises(ValueError, match=match) as told:
        guide(model, "classifier", classifier=classifier)(drawn(1.0), 1.0, class_labels=LABELS)
    assert "\n" not in str(told.value)


def with_facts(**facts):
    def f(x, sigma):
        return exact(x, sigma)

    for key, value in facts.items():
        setattr(f, key, value)
    return f


def test_a_classifier_for_others_is_refused():
    refused(with_facts(classes=("a", "b")), r"f has other classes \(2: a, b\) than class mixture")
    refused(with_facts(classes=("zero", "two", "one")), "has other classes")
    refused(with_facts(classes=tuple("0123")), "has other classes")
    refused(with_facts(shape=(3, 4, 4)), "f is for images of 3 x 4 x 4, not 2 x 4 x 4 as of class")
    for fine in (with_facts(classes=tuple("012")), with_facts(classes=("Zero", "One", "Two"))):
        guide(MIXTURE, "classifier", classifier=fine)


def test_answers_that_are_not_logits_are_refused():
    refused(lambda x, sigma: x.sum(), "its answer is not a tensor of logits")
    refused(lambda x, sigma: exact(x, sigma)[..., None], r"must be \[N, classes\], not \[4, 3, 1\]")
    refused(lambda x, sigma: exact(x, sigma).detach(), "its answer cannot be differentiated")
    refused(lambda x, sigma: exact(x, sigma)[:, :2], "it has 2 classes, so no class 2")
    refused(3, "a noisy-image classifier is a name, a file or a function, not 3")
    refused("cifar10-noisy", "for images of 3 x 32 x 32, not 2 x 4 x 4")
