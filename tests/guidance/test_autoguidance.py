"""Guidance away from a worse model, against its formula, diffusers, and what models say."""

import re
from itertools import pairwise

import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import autoguidance, cfg, cfg_pp, guide
from kdiff.noise import Noise

X = torch.linspace(-4, 6, 96, dtype=torch.float64).reshape(3, 2, 4, 4)
LABELS = torch.tensor([0, 2, 1])
SIGMAS = (0.01, 0.7, 60.0)


class Unconditional:
    """An exact model that takes no conditions."""

    name, classes = "unconditional", ()

    def __call__(self, x, sigma):
        return ClassMixture(seed=1)(x, sigma)


@pytest.fixture(params=[-0.5, 0.0, 0.3, 1.0, 2.1])
def scale(request):
    return request.param


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_formula(scale, sigma):
    """EDM2's lerp from the worse answer to the other."""
    model = autoguidance(ClassMixture(), ClassMixture(seed=1), scale)
    found = model(X, sigma, class_labels=LABELS)
    d, g = (ClassMixture(seed=seed)(X, sigma, LABELS) for seed in (0, 1))
    torch.testing.assert_close(found, g.lerp(d, scale), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_diffusers(scale, sigma):
    """Its guider, on eps."""
    guiders = pytest.importorskip("diffusers.guiders")
    model = autoguidance(ClassMixture(), ClassMixture(seed=1), scale)
    found = model(X, sigma, class_labels=LABELS)
    d, g = (ClassMixture(seed=seed)(X, sigma, LABELS) for seed in (0, 1))
    guider = guiders.AutoGuidance(scale, auto_guidance_layers=[0], dropout=0.5)
    eps = guider.forward((X - d) / sigma, (X - g) / sigma).pred
    torch.testing.assert_close(found, X - sigma * eps, rtol=1e-12, atol=1e-12)


def test_away_from_an_unconditional_model():
    """It gets no class; EDM2's classifier-free guidance is this."""
    found = autoguidance(ClassMixture(), Unconditional(), 2.0)(X, 0.7, class_labels=LABELS)
    expected = 2 * ClassMixture()(X, 0.7, LABELS) - Unconditional()(X, 0.7)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("scale", "calls"), [(2.0, (1, 1)), (1.0, (1, 0)), (0.0, (0, 1))])
def test_each_network_is_asked_once(scale, calls):
    inner, worse = ClassMixture(), ClassMixture(seed=1)
    model = autoguidance(inner, worse, scale)
    model(X, 0.7, class_labels=LABELS)
    assert (len(inner.calls), len(worse.calls)) == calls and model.evaluations(0.7) == sum(calls)


def test_around_and_inside_classifier_free_guidance():
    """g + 2 (D - g), with D or g or both guided, and all of it guided."""
    c, u, c_worse, u_worse = (
        ClassMixture(seed=seed)(X, 0.7, labels)
        for seed in (0, 1)
        for labels in (LABELS, torch.full_like(LABELS, -1))
    )
    by_three = u + 3 * (c - u), u_worse + 3 * (c_worse - u_worse)
    cases = [
        (lambda d, g: autoguidance(cfg(d, 3), g, 2), 2 * by_three[0] - c_worse, 3),
        (lambda d, g: autoguidance(d, cfg(g, 3), 2), 2 * c - by_three[1], 3),
        (lambda d, g: autoguidance(cfg(d, 3), cfg(g, 3), 2), 2 * by_three[0] - by_three[1], 4),
        (lambda d, g: cfg(autoguidance(d, g, 2), 3), 2 * by_three[0] - by_three[1], 4),
    ]
    for build, expected, evaluations in cases:
        inner, worse = ClassMixture(), ClassMixture(seed=1)
        model = build(inner, worse)
        found = model(X, 0.7, class_labels=LABELS)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        rows = sum(n for n, _ in inner.calls + worse.calls)
        assert rows == len(X) * evaluations == len(X) * model.evaluations(0.7)


def test_away_from_a_model_whose_guidance_must_know_the_step():
    """Euler's steps by hand, where the worse answer is CFG++'s."""
    model = autoguidance(ClassMixture(), cfg_pp(ClassMixture(seed=1), 0.6), 2.0)
    plan = kdiff.plan(model, "euler", steps=3, sigma_max=5.0)
    arguments = {"seeds": [4, 5, 6], "class_labels": LABELS, "dtype": torch.float64}
    found = kdiff.sample(model, "euler", steps=3, sigma_max=5.0, **arguments)
    none = torch.full_like(LABELS, -1)
    x = 5.0 * Noise([4, 5, 6], X.shape[1:], torch.float64).initial()
    for s, t in pairwise(plan.sigmas):
        d, c, u = (
            ClassMixture(seed=seed)(x, s, labels)
            for seed, labels in ((0, LABELS), (1, LABELS), (1, none))
        )
        g = u + 0.6 / (1 - t / s) * (c - u)
        d = g + 2 * (d - g)
        x = d + t / s * (x - d)
    torch.testing.assert_close(found, x)
    with pytest.raises(ValueError, match="the guidance cfg_pp is right for euler"):
        kdiff.sample(model, "heun", steps=3, **arguments)


def test_a_file_is_loaded_and_its_hash_is_in_the_record():
    model = guide(kdiff.load("mnist"), "autoguidance:model=mnist:scale=3")
    inner = kdiff.load("mnist").record()
    assert len(inner["sha256"]) == 64
    said = {"name": "autoguidance", "options": {"model": inner, "scale": 3.0}}
    assert model.record() == {**inner, "guidance": [said]}
    seeds = {"seeds": [3], "steps": 1, "class_labels": [7]}  # away from itself: nothing changes
    found, plain = kdiff.sample(model, **seeds), kdiff.sample(kdiff.load("mnist"), **seeds)
    torch.testing.assert_close(found, plain)


class Twelve(ClassMixture):
    name, classes = "twelve", tuple("abcdefghijkl")


@pytest.mark.parametrize(
    ("worse", "message"),
    [
        (None, "autoguidance needs a worse model: give model=FILE"),
        (7, "autoguidance needs a worse model: give model=FILE"),
        ("no such file", "no model 'no such file'"),
        (ClassMixture((2, 8, 8)), "it has shape (2, 8, 8), not (2, 4, 4)"),
        (Twelve(), "twelve cannot guide class mixture: it has other classes"),
    ],
    ids=["none", "number", "missing", "shape", "classes"],
)
def test_a_model_that_does_not_fit(worse, message):
    options = {} if worse is None else {"model": worse}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        guide(ClassMixture(), "autoguidance", **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
