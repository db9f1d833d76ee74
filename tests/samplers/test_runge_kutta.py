"""Runge-Kutta by tableau: the tableaux, files of them, and the sampler against scipy's methods."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import RK23, RK45

import kdiff
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY
from kdiff.samplers.butcher import ALIASES, TABLEAUX, named
from kdiff.samplers.butcher_conditions import Butcher, order_of

MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)
START = torch.tensor([[0.3, -1.2], [1.5, 0.4]], dtype=torch.float64)
SIGMAS = [20.0, 9.0, 5.0, 1.5, 0.7, 0.2]
HEUN = {"a": [[], ["1/1"]], "b": [0.5, "1/2"], "c": [0, 1]}


@pytest.mark.parametrize("t", TABLEAUX.values(), ids=lambda t: t.name)
def test_a_tableau_has_the_orders_it_declares_and_no_higher(t):
    assert order_of(t.a, t.b) == t.order
    if t.b_embedded is not None:
        assert order_of(t.a, t.b_embedded) == t.order_embedded


@pytest.mark.parametrize("t", TABLEAUX.values(), ids=lambda t: t.name)
def test_a_tableau_is_exact_for_polynomials_of_time(t):
    """A part of the conditions, checked apart: the quadrature sum_i b_i c_i^k = 1 / (k + 1)."""
    for k in range(t.order):
        assert np.dot(t.b, np.power(t.c, k)) == pytest.approx(1 / (k + 1), abs=1e-13)


@pytest.mark.parametrize(("name", "method"), [("bogacki_shampine", RK23), ("dormand_prince", RK45)])
def test_pairs_are_those_of_scipy(name, method):
    t = named(name)
    s = method.n_stages
    for i, row in enumerate(t.a[:s]):
        assert row == pytest.approx(method.A[i, :i], abs=1e-15)
    assert t.b == pytest.approx([*method.B, 0], abs=1e-15)
    assert t.c[:s] == pytest.approx(method.C, abs=1e-15)
    # scipy's E is the difference of the two results, of either sign
    difference = np.array(t.b) - t.b_embedded
    assert np.abs(difference) == pytest.approx(np.abs(method.E), abs=1e-15)


def test_every_alias_is_a_tableau():
    assert set(ALIASES.values()) <= set(TABLEAUX)
    assert named("Bogacki-Shampine") is TABLEAUX["bogacki_shampine3"]
    assert named("no such") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": [0, 0.9]}, "row 2 of a sums to 1, c has 0.9"),
        ({"c": [0, math.nan]}, "row 2 of a sums to 1, c has nan"),
        ({"a": [[], [1.5]], "c": [0, 1.5]}, "c must be from 0 to 1, not 1.5"),
        ({"b": [0.5, 0.6]}, "b sums to 1.1, not to 1"),
        ({"b": [0.4, 0.6]}, "b is not of order 2"),
        ({"b_embedded": [0.5, 0]}, "b_embedded sums to 0.5, not to 1"),
        ({"b_embedded": [1, 0], "order_embedded": 2}, "b_embedded is not of order 2"),
        ({"b_embedded": [1]}, "b has 2 stages, b_embedded has 1"),
        ({"a": [[]]}, "b has 2 stages, a has 1, c has 2"),
        ({"a": [[], []]}, "row 2 of a must have 1 weights, not 0"),
        ({"a": [], "b": [], "c": []}, "1 to 64 stages, not 0"),
    ],
    ids=str,
)
def test_a_wrong_tableau_is_refused(change, message):
    heun = {"name": "heun", "a": [[], [1]], "b": [0.5, 0.5], "c": [0, 1], "order": 2}
    Butcher(**heun)
    with pytest.raises(ValueError, match=message):
        Butcher(**heun | change)


@pytest.mark.parametrize("variable", ["sigma", "log_sigma"])
@pytest.mark.parametrize("name", ["rk4", "dormand_prince5", "ssprk3"])
def test_steps_are_those_of_the_method_on_the_ode(run, name, variable):
    """Its stages written out once more, on arrays and for a general f, as in textbooks."""
    t = TABLEAUX[name]

    def f(u, x):
        sigma = math.exp(-u) if variable == "log_sigma" else u
        d = MIXTURE(torch.from_numpy(x), sigma).numpy()
        return d - x if variable == "log_sigma" else (x - d) / sigma

    at = [-math.log(s) for s in SIGMAS] if variable == "log_sigma" else SIGMAS
    x = 20 * START.numpy()
    for u, v in pairwise(at):
        k = []
        for row, c in zip(t.a, t.c, strict=True):
            y = x + (v - u) * sum((w * one for w, one in zip(row, k, strict=True)), 0 * x)
            k.append(f(u + c * (v - u), y))
        x = x + (v - u) * sum(w * one for w, one in zip(t.b, k, strict=True))
    ours = run(MIXTURE, "runge_kutta", SIGMAS, 20 * START, tableau=name, variable=variable)
    torch.testing.assert_close(ours, torch.from_numpy(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("tableau", "other"), [("euler", "euler"), ("heun2", "heun")])
def test_it_is_the_sampler_of_that_name(run, tableau, other):
    ours = run(MIXTURE, "runge_kutta", [*SIGMAS, 0.0], 20 * START, tableau=tableau)
    torch.testing.assert_close(
        ours, run(MIXTURE, other, [*SIGMAS, 0.0], 20 * START), rtol=1e-12, atol=1e-12
    )


def test_a_last_stage_for_the_embedded_result_is_not_asked_for():
    asked = {
        name: REGISTRY["runge_kutta"].nfe(1, "sigma_min", {"tableau": name})
        for name in ("bogacki_shampine", "dormand_prince", "rk4", "butcher6")
    }
    assert asked == {"bogacki_shampine": 3, "dormand_prince": 6, "rk4": 4, "butcher6": 7}


def test_upwards_it_undoes_what_it_did(run):
    grid = kdiff.schedule("karras", 40, sigma_min=0.1, sigma_max=20, final="sigma_min")
    for variable in ("sigma", "log_sigma"):
        down = run(MIXTURE, "runge_kutta", grid, 20 * START, variable=variable)
        walk = REGISTRY["runge_kutta"].start(down, grid[::-1], None, {"variable": variable})
        ask = next(walk)
        try:
            while True:
                ask = walk.send(MIXTURE(ask[0], ask[1]))
        except StopIteration as stop:
            torch.testing.assert_close(stop.value, 20 * START, rtol=1e-4, atol=1e-4)


# --- files ---


def test_a_file_is_a_tableau(run, tmp_path):
    path = tmp_path / "t.json"
    for value in (HEUN, {"a": [[0, 0], [1, 0]], "b": [0.5, 0.5]}, HEUN | {"b_embedded": [1, 0]}):
        path.write_text(json.dumps(value))
        ours = run(MIXTURE, "runge_kutta", SIGMAS, 20 * START, tableau=str(path))
        assert torch.equal(ours, run(MIXTURE, "runge_kutta", SIGMAS, 20 * START, tableau="heun2"))
        assert REGISTRY["runge_kutta"].order({"tableau": str(path)}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be used: Expecting property name"),
        ("[" * 10000, "nested too deep"),
        ("[]", r'it must be \{"a"'),
        (json.dumps(HEUN | {"d": 1}), r'it must be \{"a"'),
        (json.dumps(HEUN | {"a": 3}), "a must be a list of rows"),
        (json.dumps(HEUN | {"a": [[], 1]}), "a must be made of lists of numbers"),
        (json.dumps(HEUN | {"b": ["1/0", 1]}), "b must hold numbers, or text like 1/3, not '1/0'"),
        (json.dumps(HEUN | {"b": [None, 1]}), "b must be a number"),
        (json.dumps(HEUN | {"a": [[0, 0], [0.5, 0.5]]}), "it is implicit"),
        (json.dumps(HEUN | {"b": [0.5, 0.4]}), "b sums to 0.9"),
        (json.dumps(HEUN | {"b": [math.nan, 1]}), "b must be a number, not nan"),
        (" " * 70000, "more than 65,536 characters"),
    ],
    ids=lambda value: value[:20],
)
def test_a_wrong_file_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        REGISTRY["runge_kutta"].nfe(3, options={"tableau": str(path)})
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_an_unknown_tableau_is_refused():
    for name, message in [("rk44", "did you mean rk4"), ("no/such.json", "No such file")]:
        with pytest.raises(ValueError, match=message):
            _ = kdiff.plan(sampler="runge_kutta", options={"tableau": name}).nfe
