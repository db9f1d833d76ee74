"""`first="analytic"`: the first answer is a Gaussian's, and counts as no evaluation."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

import kdiff
from kdiff.checkpoints import native
from kdiff.lockstep import lockstep
from kdiff.model import network_nfe
from kdiff.samplers import REGISTRY
from kdiff.samplers.tableau import trace
from tiny_model import write_tiny

MEAN = [[0.3], [-0.2]]
SAMPLERS = [name for name, s in REGISTRY.items() if s.limit is None]


class Counted:
    """N(MEAN, 0.5^2 I), which counts its calls."""

    shape, sigma_min, sigma_max, sigmas = (2, 3), 0.002, 80.0, None
    name, data_mean, data_std = "counted", MEAN, 0.5

    def __init__(self):
        mean = torch.tensor(MEAN, dtype=torch.float64).expand(2, 3)
        self.exact = kdiff.analytic.gaussian(mean, 0.5)
        self.levels = []

    def __call__(self, x, sigma, **cond):
        self.levels.append(sigma)
        return self.exact(x, sigma)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_on_a_gaussian_nothing_changes_but_the_count(name, final):
    """There the first answer is exact."""
    model, steps = Counted(), 4
    plain = kdiff.sample(model, name, steps=steps, final=final, n=2, dtype=torch.float64)
    asked, model.levels = model.levels, []
    given = kdiff.sample(
        model, name, steps=steps, final=final, n=2, dtype=torch.float64, first="analytic"
    )
    assert model.levels == asked[1:]
    torch.testing.assert_close(given, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_budget_buys_what_the_run_then_takes(name):
    for nfe in (5, 6, 9):
        if REGISTRY[name].nfe(2) > nfe + 1:
            continue  # one step is all that it pays for
        plan = kdiff.plan(Counted(), name, nfe=nfe, first="analytic")
        plain = kdiff.plan(Counted(), name, nfe=nfe + 1)
        assert plan.sigmas == plain.sigmas
        assert plan.nfe == plain.nfe - 1 <= nfe
        assert plan.levels == plain.levels[1:]
        assert plan.outline.steps == plain.outline.steps[1:]


def test_the_trace_has_the_mean():
    """Euler from 8 to 4 to 0: x_1 = x_T / 2 + D / 2 with D = k x_T + (1 - k) mean."""
    model = Counted()
    plan = kdiff.plan(model, "euler", sigmas=[8.0, 4.0, 0.0], first="analytic")
    tableau = trace(plan.solver, plan.sigmas, plan.options)
    k = 0.25 / (0.25 + 64)
    assert tableau.asks[0].x.terms == {"x_T": 0.5 + 0.5 * k, "mean": 0.5 * (1 - k)}
    assert [row.step for row in tableau.asks] == [1]
    assert tableau.result.terms == pytest.approx({"x_T": 0, "mean": 0, "D1": 1})


def test_records_say_so_and_plans_without_it_are_as_they_were():
    plan = kdiff.plan(Counted(), "euler", nfe=5, first="analytic")
    record = plan.record()
    assert record["first"] == {"name": "analytic", "mean": MEAN, "std": 0.5}
    assert (record["nfe"], record["steps"]) == (5, 6)
    assert json.loads(json.dumps(record)) == record
    assert "first" not in kdiff.plan(Counted(), "euler", nfe=5).record()
    assert pickle.loads(pickle.dumps(plan)).levels == plan.levels


def test_a_long_mean_is_recorded_by_its_hash():
    model = Counted()
    model.shape, model.data_mean = (32,), np.linspace(0, 1, 32)
    mean = kdiff.plan(model, "euler", nfe=5, first="analytic").record()["first"]["mean"]
    assert mean["numbers"] == 32 and len(mean["sha256"]) == 64


def test_guided_models_count_what_is_left(tmp_path):
    tiny = kdiff.load(write_tiny(tmp_path / "tiny.safetensors"))
    model = kdiff.guide(tiny.replace(data_std=0.5), "cfg:scale=2")
    plan = kdiff.plan(model, "euler", nfe=8, first="analytic")
    assert (plan.steps, plan.nfe, network_nfe(model, plan)) == (5, 4, 8)


def test_lockstep_gives_the_same_bits():
    model = Counted()
    plans = [kdiff.plan(model, s, nfe=5, first="analytic") for s in ("euler", "heun", "dpmpp_2m")]
    (made,) = lockstep(model, plans, [3, 4])
    for plan, outcome in zip(plans, made.outcomes, strict=True):
        alone = kdiff.sample(model, plan.sampler.name, nfe=5, first="analytic", seeds=[3, 4])
        assert torch.equal(outcome.x, alone)


def test_churn_begins_higher():
    model = Counted()
    options = {"S_churn": 4.0}
    kdiff.sample(model, "heun", steps=4, first="analytic", options=options)
    assert len(model.levels) == kdiff.plan(model, "heun", steps=4, options=options).nfe - 1


def test_what_edm_models_are_taken_to_have():
    for settings, std in [({}, 0.5), ({"sigma_data": 0.7}, 0.7)]:
        model = kdiff.Denoiser(lambda x, c: x, kdiff.precond("edm", **settings), shape=(2,))
        data = kdiff.plan(model, "euler", nfe=3, first="analytic").first
        assert (data.mean, data.std) == (0.0, std)


def test_the_packaged_model_has_its_data(tmp_path):
    model = kdiff.load("cifar10")
    assert np.shape(model.data_mean) == (3, 1, 1) and math.isclose(
        model.data_std, 0.5016, abs_tol=1e-4
    )
    native.save(tmp_path / "own.safetensors", model.network.state_dict(), native.describe(model))
    again = kdiff.load(tmp_path / "own.safetensors")
    assert (again.data_mean, again.data_std) == (model.data_mean, model.data_std)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_std": None}, "needs the mean and spread of the data, which counted does not say"),
        ({"data_std": 0.0}, "data_std must be above 0"),
        ({"data_std": "wide"}, "data_std must be a number"),
        ({"data_mean": [0.0] * 7}, "data_mean must be numbers for one sample"),
        ({"data_mean": [math.nan]}, "data_mean must be numbers for one sample: it is not finite"),
        ({"data_mean": "grey"}, "data_mean must be numbers"),
    ],
)
def test_models_that_do_not_say_enough(change, message):
    model = Counted()
    for key, value in change.items():
        setattr(model, key, value)
    with pytest.raises(ValueError, match=message):
        kdiff.plan(model, "euler", nfe=5, first="analytic")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": "zero"}, "first must be analytic, or left out"),
        ({"first": "analytic", "steps": 1}, "take more steps"),
        ({"first": "analytic", "sigma_max": 2.0}, "at a sigma of 5 or more, not 2"),
        ({"first": "analytic", "nfe": 0}, "nfe of euler must be a whole number, at least 1"),
    ],
)
def test_plans_that_cannot_have_it(settings, message):
    with pytest.raises(ValueError, match=message):
        kdiff.plan(Counted(), "euler", **settings)
