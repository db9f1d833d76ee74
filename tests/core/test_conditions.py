"""Conditions: rows for samples, objects for samples, and one for all."""

import re

import numpy as np
import pytest
import torch

import kdiff
from kdiff.conditions import Shared, chosen, conditions, joined, part, plain


def taken(**given):
    return conditions(given, 3, "cpu")


@pytest.mark.parametrize(
    "rows",
    [[1, 2, 3], (1, 2, 3), range(1, 4), np.arange(1, 4), torch.arange(1, 4)],
    ids=lambda rows: type(rows).__name__,
)
def test_numbers_become_tensors_with_a_row_a_sample(rows):
    found = taken(class_labels=rows, other=rows)
    for value in found.values():
        assert torch.equal(value, torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("make", [list, tuple, lambda texts: np.array(texts)])
def test_objects_come_in_lists(make):
    assert list(taken(prompts=make(["a", "b", "c"]))["prompts"]) == ["a", "b", "c"]
    masks = [torch.zeros(1), torch.zeros(2), torch.zeros(3)]  # of different sizes
    assert [len(mask) for mask in taken(masks=masks)["masks"]] == [1, 2, 3]


def test_what_is_not_a_list_is_for_all():
    thing = object()
    found = taken(prompt="one for all", thing=thing, settings={"a": 1}, absent=None)
    assert found == {
        "prompt": Shared("one for all"),
        "thing": Shared(thing),
        "settings": Shared({"a": 1}),
    }
    assert plain(found) == {"prompt": "one for all", "thing": thing, "settings": {"a": 1}}


def test_shared_arrays_are_not_cut():
    table = torch.ones(7, 2)
    found = taken(table=Shared(table), number=Shared(2.5))
    for some in (part(found, slice(0, 1)), chosen(found, [2]), joined(found, found)):
        assert plain(some)["table"] is found["table"].value and plain(some)["number"] == 2.5


def test_parts_choices_and_joins_go_together():
    cond = taken(class_labels=[4, 5, 6], prompts=["a", "b", "c"], shared=Shared("s"))

    def listed(some):
        return some["class_labels"].tolist(), list(some["prompts"]), some["shared"]

    assert listed(part(cond, slice(1, 3))) == ([5, 6], ["b", "c"], Shared("s"))
    for rows in ([2, 0, 2], (2, 0, 2), np.array([2, 0, 2])):
        assert listed(chosen(cond, rows)) == ([6, 4, 6], ["c", "a", "c"], Shared("s"))
    both = joined(part(cond, slice(0, 1)), chosen(cond, [2, 1]))
    assert listed(both) == ([4, 6, 5], ["a", "c", "b"], Shared("s"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_labels": [1, 2]}, "class_labels must have one row for each of the 3 samples"),
        ({"class_labels": 1}, "class_labels must have one row for each of the 3 samples"),
        ({"class_labels": ["a"] * 3}, "class_labels must be numbers, a row for each sample, not"),
        ({"class_labels": Shared(1)}, "class_labels must have one row for each of the 3 samples"),
        ({"w": 2.5}, "w must have one row for each of the 3 samples; one for all is kdiff.Shared"),
        ({"prompts": ["a", "b"]}, "prompts must have one row for each of the 3 samples; one for"),
        ({"prompts": []}, "prompts must have one row for each of the 3 samples"),
        ({"x": [1, 2, 3]}, "cond must not have 'x': the sampler gives it"),
        ({"sigma": [1, 2, 3]}, "cond must not have 'sigma': the sampler gives it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        taken(**given)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=re.escape(message)):
        kdiff.sample(lambda x, s, **cond: x, n=3, sigmas=[1, 0], shape=(1,), cond=given)


def test_labels_may_stand_in_cond_but_not_twice():
    def model(x, sigma, class_labels):
        return 0 * x + class_labels[:, None]

    arguments = {"n": 2, "sigmas": [1, 0], "shape": (1,), "cond": {"class_labels": [3, 4]}}
    assert kdiff.sample(model, "euler", **arguments).tolist() == [[3], [4]]
    for labels in ([3, 4], np.array([3, 4]), torch.tensor([3, 4])):
        with pytest.raises(ValueError, match="give class_labels once, not in cond as well"):
            kdiff.sample(model, "euler", class_labels=labels, **arguments)


def test_the_model_gets_what_belongs_to_its_batch():
    seen = []

    def model(x, sigma, prompts, table, class_labels):
        seen.append((prompts, table.tolist(), class_labels.tolist()))
        return x

    cond = {"prompts": ["a", "b", "c"], "table": Shared(torch.tensor([7.0, 8.0]))}
    arguments = {"n": 3, "batch": 2, "sigmas": [1, 0], "shape": (1,), "cond": cond}
    kdiff.sample(model, "euler", class_labels=[1, 2, 3], **arguments)
    assert seen == [(["a", "b"], [7, 8], [1, 2]), (["c"], [7, 8], [3])]


def test_conditions_are_given_by_name():
    with pytest.raises(ValueError, match="cond must be a mapping of names to conditions, not"):
        kdiff.sample(lambda x, sigma: x, sigmas=[1.0, 0.0], shape=(2,), cond=[1])
