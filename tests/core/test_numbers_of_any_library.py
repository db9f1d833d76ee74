"""NumPy and torch numbers mean what Python's do. Other values, and huge ones, are ValueErrors."""

import numpy as np
import pytest
import torch

import kdiff

HUGE = 10**400
SETTINGS = [
    ("edm", "sigma_data"),
    ("edm", "sigma_max"),
    ("ve", "sigma_max"),
    ("vp", "beta_d"),
    ("vp", "eps_t"),
    ("sub_vp", "eps_t"),
    ("flow", "time_scale"),
    ("iddpm", "c1"),
    ("iddpm", "c2"),
    ("eps", "end"),
    ("eps", "start"),
]


def network(x, t):
    return 0.1 * x


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_a_preconditioners_setting(name, key):
    half = kdiff.precond(name, **{key: 0.5})
    for number in (np.float32(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16)):
        assert kdiff.precond(name, **{key: number}).config == half.config
    for wrong in ("0.5", True, None, HUGE, -HUGE, float("nan"), float("inf"), 1j, [0.5]):
        with pytest.raises(ValueError, match=key):
            kdiff.precond(name, **{key: wrong})


@pytest.mark.parametrize("settings", [{"sigma_data": 1e308}, {"sigma_data": 0}])
def test_a_spread_that_is_no_use(settings):
    with pytest.raises(ValueError, match="sigma_data must be above 0 and at most"):
        kdiff.precond("edm", **settings)


def test_a_time_that_float32_does_not_hold():
    with pytest.raises(ValueError, match="time_scale must be above 0 and at most"):
        kdiff.precond("flow", time_scale=1e308)


@pytest.mark.parametrize("c1", [0, -1])
def test_a_table_that_divides_by_zero(c1):
    with pytest.raises(ValueError, match="there is no iddpm with"):
        kdiff.precond("iddpm", c1=c1)


@pytest.mark.parametrize("key", ["s", "max_beta"])
def test_a_beta_schedules_setting(key):
    cosine = {"alphas_cumprod": "cosine", "shape": (2,)}
    expected = kdiff.wrap(network, "eps", **cosine, **{key: 0.5}).sigmas
    assert kdiff.wrap(network, "eps", **cosine, **{key: torch.tensor(0.5)}).sigmas == expected
    with pytest.raises(ValueError, match=f"{key} must be a number"):
        kdiff.wrap(network, "eps", **cosine, **{key: "0.5"})


@pytest.mark.parametrize("key", ["betas", "alphas_cumprod"])
@pytest.mark.parametrize(
    "wrong",
    [{}, object(), 1j, [HUGE, 0.1], ["a", "b"]],
    ids=["dict", "object", "complex", "huge", "text"],
)
def test_a_list_that_is_none(key, wrong):
    with pytest.raises(ValueError, match=f"{key} must be a list"):
        kdiff.wrap(network, "eps", shape=(2,), **{key: wrong})


def test_a_null_class_that_no_tensor_holds():
    with pytest.raises(ValueError, match="null_class must be a whole number, at most"):
        kdiff.wrap(network, "eps", shape=(2,), null_class=2**63)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 3}, "seeds must be a list of whole numbers, not 3"),
        ({"class_labels": "a"}, "class_labels must be numbers"),
        ({"class_labels": [None]}, "class_labels must be numbers"),
        ({"cond": {"y": [object()] * 2}}, "y must have one row for each of the 1 samples"),
        ({"cond": {"sigma": [1]}}, "cond must not have 'sigma'"),
        ({"cond": {"x": [1]}}, "cond must not have 'x'"),
        ({"dtype": "float32"}, "noise needs a floating-point dtype, not float32"),
    ],
)
def test_what_sample_refuses(arguments, message):
    model = kdiff.wrap(network, "eps", shape=(2,))
    with pytest.raises(ValueError, match=message):
        kdiff.sample(model, "euler", steps=2, **arguments)


@pytest.mark.parametrize("kind", ["white", "brownian"])
def test_noise_levels(kind):
    draw = getattr(kdiff.Noise([0], (2,)), kind)
    assert draw(torch.tensor(2.0), np.float32(0.5)).tolist() == draw(2, 0.5).tolist()
    for wrong in ("2", None, HUGE, float("inf"), 1j):
        with pytest.raises(ValueError, match="a noise level must be"):
            draw(wrong, 0.5)
