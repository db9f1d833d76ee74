"""The strip of pictures in docs/guidance.md has every guidance, and each row is what it says."""

import numpy as np
import pytest
import torch

import kdiff
import show_guidance
from kdiff.editing import EDITS
from kdiff.guidance import GUIDANCE
from kdiff.modifications import chosen

SAME_AS_CFG = {"ho_salimans"}
BY_FUNCTION = {"autoguidance", "loss"}


@pytest.fixture(scope="module")
def shown():
    return show_guidance.rows(kdiff.load("mnist"))


def test_the_strip_has_every_guidance(shown):
    texts = [one for row in shown for one in row.guide if isinstance(one, str)]
    names = {chosen(GUIDANCE, one).name for one in texts} | BY_FUNCTION | SAME_AS_CFG
    assert names == set(GUIDANCE)
    assert {chosen(EDITS, one).name for row in shown for one in row.edits} == set(EDITS)


def test_labels_differ_and_say_what_is_not_usual(shown):
    labels = [str(row) for row in shown]
    assert len({*labels}) == len(labels) and labels[0] == "unguided"
    assert "cfg:scale=3\nnegative class" in labels
    assert "edit apg:scale=10\neuler, 20 steps" in labels


def test_a_row_is_what_kdiff_samples():
    model, labels = kdiff.load("mnist"), torch.arange(8)
    row = show_guidance.Row(["cfg:scale=2"], steps=2)
    found = row.pictures(model, {"class_labels": labels, "negative_class_labels": labels})
    images = kdiff.sample(model, steps=2, n=8, class_labels=labels, guide="cfg:scale=2")
    pixels = np.clip(np.round(images[:, 0].numpy() * 127.5 + 127.5), 0, 255).astype(np.uint8)
    assert (found[1:29, 1:29, 0] == pixels[0]).all() and (found[1:29, -29:-1, 0] == pixels[7]).all()


def test_rounded_weights_are_few_numbers_and_leave_the_model_alone():
    model = kdiff.load("mnist")
    before = [weights.clone() for weights in model.network.parameters()]
    worse = show_guidance.rounded(model, 4)
    for weights, rounded in zip(before, worse.network.parameters(), strict=True):
        assert len(rounded.unique()) <= 9 or rounded.ndim < 2
        assert (weights - rounded).abs().max() <= weights.abs().max() / 8 * 1.0001
    assert all(map(torch.equal, before, model.network.parameters()))


def test_pictures_stand_beside_their_labels():
    picture = np.full((30, 60, 3), 100, np.uint8)
    strip = np.array(show_guidance.strip(["one", "another\none"], [picture, picture // 2]))
    assert strip.shape[0] == 120 and (strip[:60, -120:] == 100).all()
    assert (strip[60:, -120:] == 50).all() and (strip[:60, :-120] < 128).any()
