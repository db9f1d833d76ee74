"""Epsilon scaling, static and dynamic thresholding: of any model's D."""

import numpy as np
import pytest
import torch

import kdiff
from kdiff.guidance import guide, guided
from two_answers import LABELS, SIGMAS, inputs

X = torch.linspace(-3, 4, 24, dtype=torch.float64).reshape(2, 3, 4)


def doubled(x, sigma):
    return 2 * x


@pytest.mark.parametrize("k", [0.9, 1.005])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_epsilon_is_divided(sigma, k):
    model, x, c, u = inputs(sigma)
    found = guided(model, ["cfg:scale=2", f"eps_scaling:k={k}"])(x, sigma, class_labels=LABELS)
    eps = (x - (u + 2 * (c - u))) / sigma
    torch.testing.assert_close(found, x - sigma * (eps / k))


def test_epsilon_divided_by_1_has_the_bits_of_the_model():
    assert torch.equal(guide(doubled, "eps_scaling", k=1)(X, 0.3), doubled(X, 0.3))


def test_static():
    found = guide(doubled, "threshold", most=1.5)(X, 1.0)
    assert torch.equal(found, (2 * X).clip(-1.5, 1.5))
    assert guide(doubled, "threshold")(X, 1.0).abs().max() == 1


@pytest.mark.parametrize("most", [0.5, 1.0, 7.0, 100.0])
@pytest.mark.parametrize("percentile", [0.0, 0.5, 0.995, 1.0])
def test_dynamic(percentile, most):
    found = guide(doubled, "dynamic_threshold", percentile=percentile, most=most)(X, 1.0)
    for one, d in zip(found.numpy(), (2 * X).numpy(), strict=True):
        s = max(most, np.quantile(np.abs(d), percentile))
        np.testing.assert_allclose(one, np.clip(d, -s, s) / s * most)
    assert found.abs().max() <= most * (1 + 1e-15)


def test_a_sample_within_the_range_has_the_bits_of_the_model():
    x = torch.cat([X / 100, X])
    found = guide(doubled, "dynamic_threshold")(x, 1.0)
    assert torch.equal(found[:2], doubled(x, 1.0)[:2])
    assert not torch.equal(found[2:], doubled(x, 1.0)[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dynamic_in_other_dtypes(dtype):
    x = X.to(dtype)
    found = guide(doubled, "dynamic_threshold")(x, 1.0)
    assert found.dtype == dtype and found.abs().max() <= 1


def test_the_conventions_of_others():
    """diffusers' `sample_max_value` is the most that s is."""
    diffusers = pytest.importorskip("diffusers")
    for ours, most in [(1.0, 1e9), (None, 1.0)]:
        theirs = diffusers.DDPMScheduler(
            thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=most
        )._threshold_sample(2 * X)
        name = "threshold" if ours is None else "dynamic_threshold:percentile=0.9"
        torch.testing.assert_close(guide(doubled, name)(X, 1.0), theirs)


def test_they_need_no_classes_and_stand_around_any_guidance():
    said = "threshold:most=0.5"
    plain = kdiff.sample(doubled, "euler", sigmas=[9.0, 3.0, 0.0], shape=(3,), guide=said)
    assert plain.abs().max() <= 0.5
    model, x, *_ = inputs(2.0)
    order = ["cfg:scale=30", "dynamic_threshold", "interval:high=3"]
    assert guided(model, order)(x, 2.0, class_labels=LABELS).abs().max() <= 1
    assert guided(model, order).evaluations(2.0) == 2
    assert guided(model, order).evaluations(4.0) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("eps_scaling:k=0", "k must be a number from 0.5 to 2, not '0'"),
        ("threshold:most=0", "most must be a number, at least 1e-06, not '0'"),
        ("dynamic_threshold:percentile=99.5", "percentile must be a number from 0 to 1"),
    ],
)
def test_what_is_wrong_is_said(said, message):
    with pytest.raises(ValueError, match=message):
        guide(doubled, said)
