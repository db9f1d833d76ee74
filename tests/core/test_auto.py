"""`auto` is a plan that a measurement chose, and nothing else."""

import dataclasses
import json

import pytest
import torch

import kdiff
from kdiff import auto
from kdiff.samplers import REGISTRY
from tiny_models import kdiff_cli

TABLE = {
    "model": "cifar10",
    "judged": "RMSE (3 seeds)",
    "candidates": 7,
    "budgets": {
        "4": {
            **{"sampler": "unipc", "options": {"order": 3}, "schedule": "exponential"},
            **{"final": "sigma_min", "first": "analytic", "figures": {"RMSE": 0.1}},
        },
        "10": {
            **{"sampler": "heun", "options": {}, "schedule": "karras"},
            **{"final": "zero", "first": None, "figures": {"RMSE": 0.01}},
        },
    },
}


class Known(kdiff.analytic.GaussianMixture):
    name, data_mean, data_std = "known", 0.0, 0.5


MODEL = Known(torch.zeros(1, 2), torch.full((1,), 0.5))


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(auto, "measured", lambda: TABLE)


def test_the_committed_table_has_plans_that_can_be_made():
    for budget, said in auto.measured()["budgets"].items():
        plan = kdiff.plan(MODEL, "auto", nfe=int(budget))
        assert plan.sampler is REGISTRY[said["sampler"]]
        assert plan.nfe <= int(budget) and plan.final == said["final"]
        assert said["figures"]["RMSE"] < 1


@pytest.mark.parametrize(
    ("budget", "name", "steps", "nfe"),
    [
        (1, "unipc", 2, 1),
        (4, "unipc", 5, 4),
        (9, "unipc", 10, 9),
        (10, "heun", 5, 9),
        (70, "heun", 35, 69),
    ],
)
def test_the_next_lower_budget_chooses(budget, name, steps, nfe, table):
    plan = kdiff.plan(MODEL, "auto", nfe=budget)
    assert (plan.sampler.name, plan.steps, plan.nfe) == (name, steps, nfe)


def test_it_is_the_plan_that_it_chose(table):
    chosen = {"schedule": "exponential", "final": "sigma_min", "first": "analytic"}
    expected = kdiff.plan(MODEL, "unipc", nfe=6, options={"order": 3}, sigma_max=40.0, **chosen)
    assert kdiff.plan(MODEL, "Auto", nfe=6, sigma_max=40.0) == expected
    assert kdiff.plan(MODEL, "auto", steps=6).steps == 6
    assert kdiff.plan(MODEL, "auto").steps == 20


def test_without_the_data_the_network_answers_first(table):
    plain = kdiff.analytic.data_set(torch.zeros(1, 2))
    plan = kdiff.plan(plain, "auto", nfe=5)
    assert plan.first is None and plan.nfe == 5
    assert dataclasses.replace(plan).record()["final"] == "sigma_min"


@pytest.mark.parametrize(
    "beside",
    [
        {"schedule": "karras"},
        {"final": "zero"},
        {"first": "analytic"},
        {"options": {"order": 1}},
        {"sigmas": [1.0, 0.0]},
        {"rho": 3.0},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_what_it_chooses_cannot_be_given(beside, table):
    with pytest.raises(
        ValueError, match=f"auto chooses the whole plan: leave out {next(iter(beside))}"
    ):
        kdiff.plan(MODEL, "auto", **beside)


def test_one_line_says_what_was_chosen(table):
    shown = kdiff_cli("explain", "auto", "--nfe", 5, "--json")
    assert shown.stderr.splitlines() == [
        "auto: unipc (order=3), 6 steps, exponential, final sigma_min, first analytic: the best of "
        "7 by RMSE (3 seeds) on the packaged cifar10 model"
    ]
    assert json.loads(shown.stdout)["sampler"] == "unipc"
    plan = kdiff.plan(MODEL, "auto", nfe=10)
    assert auto.told(plan, MODEL).endswith("cifar10 model, which this model is not")
    guided = kdiff_cli("explain", "auto", "--nfe", 10, "--guide", "cfg:scale=2")
    assert "which this model is not" in guided.stderr


def test_sweeps_take_it_and_both_axes():
    words = ["--model", "mnist", "--metrics", "none", "--num", 2, "--dry-run"]
    shown = kdiff_cli("sweep", "--sampler", "auto", "--nfe", "5,8", *words)
    assert shown.exit_code == 0 and shown.stderr.count("auto: ") == 2
    both = ["--final", "zero,sigma_min", "--first", "none,analytic", "--nfe", 5]
    lines = kdiff_cli("sweep", "--sampler", "euler", *both, *words).stdout.splitlines()[:-1]
    assert [line.split("  ")[1].removeprefix("mnist, ") for line in lines] == [
        "euler, karras, 5 steps, NFE 5",
        "euler (first=analytic), karras, 6 steps, NFE 5",
        "euler (final=sigma_min), karras, 5 steps, NFE 5",
        "euler (final=sigma_min, first=analytic), karras, 6 steps, NFE 5",
    ]
    for option, bad in [("--final", "zero,one"), ("--first", "gauss")]:
        refused = kdiff_cli("sweep", "--sampler", "euler", option, bad, *words)
        assert refused.exit_code == 2 and f"{option} takes a list of" in refused.stderr
