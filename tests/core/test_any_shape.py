"""Data of any shape: samplers, models and conditions do not care what the axes mean."""

import math

import numpy as np
import pytest
import torch

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY

SHAPES = {
    "scalars": (),
    "vectors": (12,),
    "tokens, channels last": (4, 3),
    "audio": (1, 12),
    "points": (4, 3),
    "video": (2, 3, 2, 1),
    "one number": (1,),
    "a batch axis of two": (2, 6),
}
STEPS = 4


def mixture(shape):
    """Two components. All is in float64, so that rounding hides nothing."""
    size = math.prod(shape)
    means = torch.linspace(-1, 1, 2 * size, dtype=torch.float64).reshape(2, *shape)
    return GaussianMixture(means, torch.tensor([0.3, 0.5], dtype=torch.float64))


def wrapped(shape):
    return kdiff.wrap(mixture_of_batches(shape), "denoised", shape=shape)


def mixture_of_batches(shape):
    exact = mixture(shape)
    return lambda x, sigma: exact(x, float(sigma[0]))


def sampled(model, name, shape, **more):
    keywords = {"steps": STEPS, "sigma_min": 0.01, "sigma_max": 20.0, "dtype": torch.float64}
    return kdiff.sample(model, name, n=3, shape=shape, **keywords, **more)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_shape_is_only_a_view_of_as_many_numbers(name):
    """The mixture knows no axes, and noise comes in one order: so neither may a sampler."""
    for shape in dict.fromkeys(SHAPES.values()):
        flat = (math.prod(shape),)
        expected = sampled(mixture(flat), name, flat)
        for model in (mixture(shape), wrapped(shape)):
            made = sampled(model, name, shape)
            assert made.shape == (3, *shape) and made.dtype == torch.float64
            torch.testing.assert_close(made.reshape(3, *flat), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", dict.fromkeys(SHAPES.values()), ids=str)
def test_batches_of_a_fixed_size_change_nothing(shape):
    plain = sampled(wrapped(shape), "heun", shape)
    for more in ({"deterministic": True}, {"batch": 1}, {"seeds": [0, 1, 2]}):
        made = sampled(wrapped(shape), "heun", shape, **more)
        torch.testing.assert_close(made, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", dict.fromkeys(SHAPES.values()), ids=str)
def test_a_network_sees_the_shape_and_one_time_a_sample(shape):
    seen = []

    def network(x, t):
        seen.append((tuple(x.shape), tuple(t.shape), x.is_contiguous()))
        return x * 0

    model = kdiff.wrap(network, "v", shape=shape)
    assert kdiff.sample(model, n=2, steps=2).shape == (2, *shape)
    assert set(seen) == {((2, *shape), (2,), True)} and model.learned_variance is False


@pytest.mark.parametrize("shape", [(4,), (4, 3), (1, 12)])
def test_twice_as_many_entries_are_an_error_unless_they_were_said_to_be_variance(shape):
    """Tokens with their channels last have positions on axis 1: half of them must never go."""

    def network(x, t):
        return torch.cat([x, x], dim=1)

    said = {None: True, True: True, False: False}
    for learned, dropped in said.items():
        model = kdiff.wrap(network, "eps", shape=shape, learned_variance=learned)
        if dropped:
            assert kdiff.sample(model, n=2, steps=1).shape == (2, *shape)
            continue
        with pytest.raises(ValueError, match="is a learned variance, say learned_variance=True"):
            kdiff.sample(model, n=2, steps=1)


# --- conditions ---

NAMES = ["a", "b", "c"]
MASK = torch.tensor([[1.0], [2.0], [3.0]])


def told(**cond):
    """What a network gets of conditions, for each call, and the samples."""
    seen = []

    def network(x, t, **given):
        seen.append(given)
        return x

    model = kdiff.wrap(network, "denoised", shape=(2,), classes=5)
    kdiff.sample(model, n=3, steps=1, batch=2, cond=cond)
    return seen


def test_each_sample_gets_its_own_conditions():
    first, second = told(names=NAMES, mask=MASK, class_labels=[4, 0, 1])
    assert (first["names"], second["names"]) == (["a", "b"], ["c"])
    assert torch.equal(torch.cat([first["mask"], second["mask"]]), MASK)
    assert first["class_labels"].tolist() == [4, 0] and second["class_labels"].tolist() == [1]


def test_what_is_shared_comes_as_it_is():
    thing = object()
    for given in told(prompt="a cat", thing=thing, names=kdiff.Shared(NAMES), class_labels=[1] * 3):
        assert (given["prompt"], given["thing"], given["names"]) == ("a cat", thing, NAMES)


def test_classes_may_be_of_any_library():
    model = kdiff.wrap(lambda x, t, class_labels: x + class_labels[:, None], shape=(2,), classes=3)
    made = [
        kdiff.sample(model, n=2, steps=1, class_labels=labels)
        for labels in ([1, 2], np.array([1, 2]), torch.tensor([1, 2]))
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_a_class_is_said_for_each():
    with pytest.raises(ValueError, match="class_labels must have one row for each of the 3"):
        told(class_labels=kdiff.Shared(3))


def test_a_denoiser_itself_takes_any_condition():
    model = kdiff.Denoiser(lambda x, c, **given: x * given["by"][0], "denoised", shape=(2,))
    for by in ([2, 3], kdiff.Shared([2]), torch.tensor([2.0, 5.0])):
        assert torch.equal(model(torch.ones(2, 2), 1.0, by=by), torch.full((2, 2), 2.0))
    with pytest.raises(ValueError, match="class_labels must have one row for each of the 2"):
        model(torch.ones(2, 2), 1.0, class_labels=kdiff.Shared(3))
