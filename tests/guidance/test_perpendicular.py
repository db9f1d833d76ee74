"""Perpendicular negatives, against the published formula, and what they leave alone."""

import pytest
import torch

from class_mixture import ClassMixture
from kdiff.guidance import autoguidance, cfg, perp_neg

X = torch.linspace(-4, 6, 96, dtype=torch.float64).reshape(3, 2, 4, 4)
LABELS, NEGATIVE, NONE = (torch.tensor(rows) for rows in ([0, 2, 1], [1, 0, 2], [-1, -1, -1]))
TOLD = {"class_labels": LABELS, "negative_class_labels": NEGATIVE}


def three(model, sigma=0.7):
    return [model(X, sigma, labels) for labels in (LABELS, NEGATIVE, NONE)]


def published(c, n, e, scale, neg_scale):
    """For one sample: the negative direction less its projection on the positive one."""
    onto = torch.stack([(c - e).flatten()], dim=1)
    projection = onto @ torch.linalg.pinv(onto)
    perpendicular = (n - e).flatten() - projection @ (n - e).flatten()
    return e + scale * ((c - e) - neg_scale * perpendicular.reshape(c.shape))


@pytest.mark.parametrize("sigma", [0.05, 0.7, 60.0])
@pytest.mark.parametrize(
    ("scale", "neg_scale"), [(8.0, 1.0), (2.0, 0.3), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]
)
def test_the_formula(scale, neg_scale, sigma):
    found = perp_neg(ClassMixture(), scale, neg_scale)(X, sigma, **TOLD)
    each = zip(*three(ClassMixture(), sigma), strict=True)
    expected = torch.stack([published(*one, scale, neg_scale) for one in each])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_the_negative_one_shares_is_not_taken_away():
    """The component along c - e is w |c - e|, however strong the negative one is."""
    c, _, e = three(ClassMixture())
    for neg_scale in (0.0, 1.0, 50.0):
        found = perp_neg(ClassMixture(), 3.0, neg_scale)(X, 0.7, **TOLD)
        along = ((found - e) * (c - e)).flatten(1).sum(1) / (c - e).flatten(1).square().sum(1)
        torch.testing.assert_close(along, torch.full_like(along, 3.0))


def test_a_negative_class_that_is_the_class_changes_nothing():
    same = {"class_labels": LABELS, "negative_class_labels": LABELS}
    found = perp_neg(ClassMixture(), 3.0, 5.0)(X, 0.7, **same)
    expected = cfg(ClassMixture(), 3.0)(X, 0.7, class_labels=LABELS)
    torch.testing.assert_close(found, expected)


def test_nothing_to_project_on_stays_finite():
    """c = e: only the negative direction is left."""
    nothing = {"class_labels": NONE, "negative_class_labels": NEGATIVE}
    found = perp_neg(ClassMixture(), 3.0, 0.5)(X, 0.7, **nothing)
    _, n, e = three(ClassMixture())
    torch.testing.assert_close(found, e - 1.5 * (n - e))


def test_three_questions_are_one_call():
    inner = ClassMixture()
    model = perp_neg(inner)
    model(X, 0.7, **TOLD)
    assert inner.calls == [(3 * len(X), 0.7)] and model.evaluations(0.7) == 3


def test_prompts():
    """Conditions of any name, with what takes their place."""

    def model(x, sigma, text):
        return ClassMixture()(x, sigma, torch.tensor([len(one) - 1 for one in text]))

    model.takes_prompts = True
    text = {"text": ["a", "ccc", "bb"], "negative_text": ["bb", "a", "ccc"], "null_text": [""] * 3}
    found = perp_neg(model, 4.0, 0.5)(X, 0.7, **text)
    torch.testing.assert_close(found, perp_neg(ClassMixture(), 4.0, 0.5)(X, 0.7, **TOLD))


def test_around_and_inside_other_guidance():
    first, second = three(ClassMixture()), three(ClassMixture(seed=1))
    away = [2 * d - g for d, g in zip(first, second, strict=True)]
    expected = torch.stack([published(*one, 4.0, 0.5) for one in zip(*away, strict=True)])
    inner, worse = ClassMixture(), ClassMixture(seed=1)
    model = perp_neg(autoguidance(inner, worse, 2.0), 4.0, 0.5)
    torch.testing.assert_close(model(X, 0.7, **TOLD), expected, rtol=1e-9, atol=1e-9)
    assert sum(n for n, _ in inner.calls + worse.calls) == 6 * len(X)
    assert model.evaluations(0.7) == 6


def test_without_a_negative_class_it_is_refused():
    with pytest.raises(ValueError, match="perp_neg needs a negative class or prompt"):
        perp_neg(ClassMixture())(X, 0.7, class_labels=LABELS)
