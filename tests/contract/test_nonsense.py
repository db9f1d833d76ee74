"""Samplers that say what the contract does not admit: one line says what is wrong."""

import re

import pytest

from kdiff.samplers import Ask, Sampler, Walk
from odd_samplers import local, plan_of, states_of


def says(what):
    """A sampler that yields what(x, s), and returns the answer."""

    def function(x, sigmas):
        return (yield what(x, sigmas[0]))

    return Sampler("odd", function, lambda options: 1, "none", linear=False)


def returns(what):
    def function(x, sigmas):
        d = yield x, sigmas[0]
        return what(d)

    return Sampler("odd", function, lambda options: 1, "none", linear=False)


NONSENSE = {
    "x alone": (says(lambda x, s: x), TypeError, "must yield (x, sigma), or a list"),
    "nothing": (says(lambda x, s: None), TypeError, "must yield (x, sigma), or a list"),
    "text": (says(lambda x, s: "xs"), TypeError, "must yield (x, sigma), or a list"),
    "one thing": (says(lambda x, s: (x,)), TypeError, "must yield (x, sigma), or a list"),
    "too much": (says(lambda x, s: (x, s, *"abcdef")), TypeError, "must yield (x, sigma)"),
    "in a list": (says(lambda x, s: [(x, s), x]), TypeError, "must yield (x, sigma)"),
    "a number for x": (
        says(lambda x, s: (1.0, s)),
        TypeError,
        "odd must ask about a tensor (2, 3)",
    ),
    "another shape": (says(lambda x, s: (x[:1], s)), ValueError, "a tensor (2, 3), not (1, 3)"),
    "other rows": (says(lambda x, s: (x, s, [0])), ValueError, "a tensor (1, 3), not (2, 3)"),
    "text for sigma": (says(lambda x, s: (x, "s")), ValueError, "must be a number, not 's'"),
    "no sigma": (says(lambda x, s: (x, float("nan"))), ValueError, "must be a number, not nan"),
    "sigma below 0": (says(lambda x, s: (x, -s)), ValueError, "a noise level below 0, -8.0"),
    "a row that is not there": (
        says(lambda x, s: Ask(x, s, [0, 7])),
        ValueError,
        "a row that odd asks about must be a whole number, at most 1, not 7",
    ),
    "a row below 0": (says(lambda x, s: Ask(x, s, [0, -1])), ValueError, "at least 0, not -1"),
    "text for rows": (says(lambda x, s: Ask(x, s, "ab")), ValueError, "not 'a'"),
    "a number for rows": (says(lambda x, s: Ask(x, s, 1)), TypeError, "must say rows as a list"),
    "text for a step": (
        says(lambda x, s: Ask(x, s, step="first")),
        ValueError,
        "the step that odd asks in must be a whole number, at least 0, not 'first'",
    ),
    "a step too far": (says(lambda x, s: Ask(x, s, step=1)), ValueError, "at most 0, not 1"),
    "whole numbers": (says(lambda x, s: (x.long(), s)), ValueError, "of a floating-point dtype"),
    "no return": (returns(lambda d: None), TypeError, "odd must return a tensor (2, 3), not None"),
    "one of the answers": (returns(lambda d: d[0]), ValueError, "a tensor (2, 3), not (3,)"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_told_in_one_line(case):
    which, error, message = NONSENSE[case]
    with pytest.raises(error, match=re.escape(message)) as caught:
        states_of(plan_of(which, [8.0, 0.0]), [0, 1])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def _silent(x, sigmas):
    while True:
        yield []


def test_empty_lists_without_end_are_an_error_and_some_are_not():
    def patient(x, sigmas):
        for _ in range(500):
            assert (yield []) == []
        return (yield x, sigmas[0])

    assert Walk(patient(1.0, [8.0])).ask == Ask(1.0, 8.0)
    with pytest.raises(ValueError, match="does not end: it has yielded 10,000 empty lists"):
        states_of(plan_of(Sampler("odd", _silent, lambda options: 1, "none"), [8.0, 0.0]))


def test_a_function_that_yields_nothing_is_not_a_sampler():
    def plain(x, sigmas):
        return x

    with pytest.raises(TypeError, match="a sampler must be a generator"):
        states_of(plan_of(Sampler("odd", plain, lambda options: 1, "none"), [8.0, 0.0]))


def test_a_sampler_that_is_not_linear_but_says_so():
    @local()
    def clamping(x, sigmas):
        d = yield x, sigmas[0]
        return d.clamp(-1, 1)

    with pytest.raises(TypeError, match=r"clamping does not run on plain numbers .*linear=False"):
        states_of(plan_of(clamping, [8.0, 0.0]))
