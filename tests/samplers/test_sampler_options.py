"""Options of samplers: how they are parsed, and how wrong ones are refused."""

import math

import numpy as np
import pytest
import torch

import kdiff
from kdiff.samplers import REGISTRY, UnknownName


@pytest.mark.parametrize(
    ("name", "key", "given", "parsed"),
    [
        ("euler_ancestral", "eta", "0.5", 0.5),
        ("euler_ancestral", "eta", 1, 1.0),
        ("euler", "S_tmax", "inf", math.inf),
        ("lms", "order", "3", 3),
        ("lms", "order", 3.0, 3),
        ("lms", "order", np.int64(3), 3),
        ("lms", "order", torch.tensor(3), 3),
        ("ddim", "eta", np.float32(0.5), 0.5),
        ("euler", "S_churn", torch.tensor(2.0), 2.0),
        ("euler", "S_tmax", np.float64(math.inf), math.inf),
        ("unipc", "variant", np.str_("bh1"), "bh1"),
        ("dpmpp_3m", "as_published", np.bool_(True), True),
        ("unipc", "variant", "bh1", "bh1"),
        *[("dpmpp_3m", "as_published", v, True) for v in (True, "true", "True", "1", "yes", 1)],
        *[("dpmpp_3m", "as_published", v, False) for v in (False, "false", "0", "no", 0)],
    ],
)
def test_options_are_parsed(name, key, given, parsed):
    value = REGISTRY[name].with_defaults({key: given})[key]
    assert value == parsed
    assert type(value) is type(parsed)


@pytest.mark.parametrize(
    ("name", "key", "given", "allowed"),
    [
        *[
            ("ddim", "eta", v, "a number from 0 to 1")
            for v in (-0.1, 1.1, math.nan, "nan", "x", "", True, np.bool_(False), [0.5])
        ],
        *[
            ("euler", "S_churn", v, "a number, at least 0")
            for v in (-1, math.nan, None, "1,5", "x", 10**400)
        ],
        *[
            ("lms", "order", v, "a whole number from 1 to 9")
            for v in (0, 10, 2.5, "2.5", "two", math.nan, True, math.inf)
        ],
        *[("unipc", "variant", v, "bh1 or bh2 or vary_coeff") for v in ("bh3", "", None, 1)],
        *[("dpmpp_3m", "as_published", v, "true or false") for v in ("maybe", 2, None, "")],
        ("dpmpp_sde", "r", 0, "a number from 0.05 to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_the_right_ones(name, key, given, allowed):
    with pytest.raises(ValueError) as error:
        REGISTRY[name].with_defaults({key: given})
    assert str(error.value) == f"{key} must be {allowed}, not {given!r:.80}"


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("euler", "s_chrn", "S_churn"),
        ("dpmpp_2m", "solver", "solver_type"),
        ("plms", "eta", "there is none"),
    ],
)
def test_an_unknown_option_suggests_the_nearest(name, key, hint):
    with pytest.raises(UnknownName, match=hint) as error:
        REGISTRY[name].with_defaults({key: 1})
    assert f"{name} option" in str(error.value)


def test_the_case_of_an_option_does_not_count():
    assert REGISTRY["heun"].with_defaults({"s_churn": 3, "S_NOISE": 2})["S_churn"] == 3.0


BAD = "[[3, 2, 0.3, 0.14]]", "[[1, 2, 0.1, 0.3]]", "[[3, 2.5, 0.1, 0.3]]", "[3, 2]", "{", "7"
BAD += "[[3, 2000, 0.1, 0.3]]", "[[3, 2, 0.1, 1e300]]", f"[[3, 2, 0.1, 1{400 * '0'}]]", 9999 * "["


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *[("restart", {"restarts": bad}, r"restarts must be \[\[points, times") for bad in BAD],
        *[("analytic_dpm", {"gammas": bad}, "gammas must be") for bad in ("[1]", "{", "[[0, 1]]")],
        ("seeds_3", {"r_1": 0.7}, "seeds_3 needs r_1 below r_2, not r_1=0.7"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_options_that_do_not_go_together_are_refused_when_the_plan_is_outlined(
    name, options, message
):
    plan = kdiff.plan(sampler=name, steps=4, options=options)
    with pytest.raises(ValueError, match=message):
        plan.outline  # noqa: B018
