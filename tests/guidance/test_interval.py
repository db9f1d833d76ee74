"""Guidance in a limited interval of noise levels, and how it composes."""

import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import guide, guided
from two_answers import LABELS, inputs


@pytest.mark.parametrize(
    ("sigma", "weight"), [(0.2, 1), (0.5, 1), (0.500001, 3), (1.0, 3), (2.0, 3), (2.000001, 1)]
)
def test_the_weight_is_w_in_the_interval_and_1_elsewhere(sigma, weight):
    model, x, c, u = inputs(sigma)
    around = guided(model, ["cfg:scale=3", "interval:low=0.5:high=2"])
    found = around(x, sigma, class_labels=LABELS)
    torch.testing.assert_close(found, u + weight * (c - u))
    rows = len(x) * (2 if weight == 3 else 1)
    assert model.calls == [(rows, sigma)] and around.evaluations(sigma) * len(x) == rows


def test_by_default_it_is_everywhere():
    for sigma in (0.1, 1.0, 1e3):
        model, x, *_ = inputs(sigma)
        inside = guide(model, "cfg", scale=2.0)
        around = guide(inside, "interval")
        same = around(x, sigma, class_labels=LABELS)
        assert torch.equal(same, inside(x, sigma, class_labels=LABELS))
        assert around.evaluations(sigma) == 2


def test_a_run_is_guided_in_the_steps_of_the_interval():
    """Of Euler, whose steps begin at 8, 4, 2 and 1: those at 4 and 2."""
    grid = [8.0, 4.0, 2.0, 1.0, 0.0]
    model, states = ClassMixture(), []
    found = kdiff.sample(
        model,
        "euler",
        sigmas=grid,
        n=3,
        dtype=torch.float64,
        class_labels=LABELS,
        guide=["cfg:scale=2.5", "interval:low=1:high=4"],
        callback=states.append,
    )
    x = 8 * kdiff.Noise([0, 1, 2], model.shape, torch.float64).initial()
    for s, t, w in [(8, 4, 1), (4, 2, 2.5), (2, 1, 2.5), (1, 0, 1)]:
        c, u = model(x, s, LABELS), model(x, s)
        x = x + (t - s) * (x - (u + w * (c - u))) / s
    torch.testing.assert_close(found, x)
    assert [state.nfe for state in states] == [1, 3, 5, 6, 6]


@pytest.mark.parametrize(("sigma", "inner"), [(1.0, 2), (5.0, 1)])
def test_what_stands_in_it_and_around_it(sigma, inner):
    """Rescaling in the interval is left out with the rest; around the interval it finds c, which
    has been computed."""
    for order in (
        ["cfg:scale=4", "rescale", "interval:high=2"],
        ["cfg:scale=4", "interval:high=2", "rescale"],
    ):
        model, x, c, _ = inputs(sigma)
        around = guided(model, order)
        found = around(x, sigma, class_labels=LABELS)
        plain, *_ = inputs(sigma)
        expected = guided(plain, [*order[:1], "rescale"])(x, sigma, class_labels=LABELS)
        torch.testing.assert_close(found, expected if inner == 2 else c)
        assert sum(n for n, _ in model.calls) == inner * len(x) == around.evaluations(sigma) * 3


def test_two_intervals_of_two_guidances():
    """The outer guidance asks what is guided inside, within its own interval."""
    for sigma, evaluations in [(0.5, 1), (1.5, 2), (3.0, 1)]:
        model, x, *_ = inputs(sigma)
        around = guided(model, ["apg:scale=2", "interval:low=1:high=2"])
        around(x, sigma, class_labels=LABELS)
        assert around.evaluations(sigma) == evaluations == sum(n for n, _ in model.calls) / 3


@pytest.mark.parametrize("said", ["interval:low=2:high=2", "interval:low=3:high=1"])
def test_an_empty_interval_is_refused(said):
    with pytest.raises(ValueError, match="needs low < high, not "):
        guided(ClassMixture(), ["cfg", said])
    with pytest.raises(ValueError, match="low must be a number, at least 0"):
        guide(ClassMixture(), "interval:low=-1")
