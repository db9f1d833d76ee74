"""Classifier-free guidance: its formula, what it leaves alone, and that it goes around itself."""

import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.analytic import gaussian_solution
from kdiff.guidance import guide, guided
from kdiff.modifications import Modification

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 3])


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_formula(scale):
    """u + w (c - u), of two Gaussians that differ in their means, is D of a third Gaussian."""
    model = guide(Pointwise(), "cfg", scale=scale)
    found = model(X, 2.0, class_labels=LABELS)
    expected = Pointwise()(X, 2.0) + scale * (1 - 0.25 / 4.25) * LABELS[:, None]
    torch.testing.assert_close(found, expected)


def test_a_guided_run_ends_where_the_exact_one_does():
    """The ODE of a Gaussian whose mean is w times the class away from the rest."""
    grid = [9 - 8 * i / 300 for i in range(301)]
    x = kdiff.sample(
        Pointwise(), "heun", sigmas=grid, seeds=[3, 4], class_labels=LABELS, guide="cfg:scale=2.5"
    )
    start = 9 * kdiff.Noise([3, 4], (3,)).initial()
    mean = Pointwise().mean(start) + 2.5 * LABELS[:, None]
    expected = gaussian_solution(mean, 0.5, start, 9.0, 1.0)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scale", "labels"), [(1.0, [1, 3]), (0.0, [-1, -1])])
def test_no_guidance_has_the_bits_of_the_model_itself(scale, labels):
    found = kdiff.sample(Pointwise(), steps=4, n=2, class_labels=[1, 3], guide=f"cfg:scale={scale}")
    assert torch.equal(found, kdiff.sample(Pointwise(), steps=4, n=2, class_labels=labels))


def test_rows_for_classes_are_zero_without_one():
    """One-hot rows, or embeddings."""
    seen = []

    def model(x, sigma, class_labels):
        seen.append(class_labels)
        return x

    model.classes = ("a", "b")
    rows = torch.eye(2, dtype=torch.float64)
    guide(model, "cfg", scale=2.0)(X, 2.0, class_labels=rows)
    assert torch.equal(seen[0], torch.cat([rows, torch.zeros(2, 2)]))


@pytest.mark.parametrize("batch", [3, 2])
def test_the_other_conditions_stay_with_their_samples(batch):
    cond = {"prompts": ["a", "bb", "ccc"], "lift": kdiff.Shared(torch.tensor([0.5, 1.0, 1.5]))}
    arguments = {"steps": 3, "guide": "cfg:scale=2", "batch": batch}
    together = kdiff.sample(Pointwise(), n=3, class_labels=[3, 1, 2], cond=cond, **arguments)
    for i, label in enumerate([3, 1, 2]):
        own = {"prompts": cond["prompts"][i : i + 1], "lift": cond["lift"]}
        alone = kdiff.sample(Pointwise(), seed=i, class_labels=[label], cond=own, **arguments)
        assert torch.equal(together[i], alone[0])


def test_guidance_of_a_guided_model():
    """u + a (u + b (c - u) - u) = u + a b (c - u). The outer one asks about u, for which the inner
    one asks about u, and u of u is u."""
    inner = Pointwise()
    model = guide(guide(inner, "cfg", scale=2.0), "cfg:scale=3")
    expected = guide(Pointwise(), "cfg", scale=6.0)(X, 2.0, class_labels=LABELS)
    torch.testing.assert_close(model(X, 2.0, class_labels=LABELS), expected)
    assert inner.calls == [(4, 2.0)] and model.evaluations(2.0) == 2
    scales = [said["options"]["scale"] for said in model.record()["guidance"]]
    assert scales == [2.0, 3.0]  # from the inside out
    same = guided(Pointwise(), ["cfg:scale=2", Modification("cfg", {"scale": 3})])
    assert same.record() == model.record()
    assert guided(inner, []) is inner


def test_guidance_of_a_guided_model_with_a_negative_class():
    """u of u is u, for which nothing is left out: u + a (u + b (c - u) - u)."""
    classes = {"class_labels": LABELS, "negative_class_labels": LABELS.flip(0)}
    found = guide(guide(Pointwise(), "cfg", scale=2.0), "cfg", scale=3.0)(X, 2.0, **classes)
    c, u = (Pointwise()(X, 2.0, labels) for labels in (LABELS, LABELS.flip(0)))
    torch.testing.assert_close(found, u + 6 * (c - u))


def test_without_the_class_around_guidance():
    """w = 0 asks the guided model inside about u alone, whose u is the same."""
    inner = Pointwise()
    model = guide(guide(inner, "cfg", scale=2.0), "cfg", scale=0.0)
    model(X, 2.0, class_labels=LABELS)
    assert sum(n for n, _ in inner.calls) == len(X) * model.evaluations(2.0) == len(X)
