"""Inversion: every sampler of the ODE runs upward in sigma, to noise that leads back."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.analytic import gaussian, gaussian_solution
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY
from kdiff.samplers.outline import step_of
from kdiff.samplers.tableau import trace

RANGE = {"sigma_min": 0.02, "sigma_max": 20.0, "final": "sigma_min"}
MEAN, STD = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5
STEPS = (24, 48, 96)

SOLVERS = [name for name, s in REGISTRY.items() if s.ode is not None and s.limit is None]
every_solver = pytest.mark.parametrize("name", SOLVERS)
# Upward, the first steps of a multistep method are where D bends, so their order, 2, shows.
LOOK_AHEAD = ("heunpp2",)  # asks at levels after its step
FIRST_STEPS = {"dpmpp_km": 3, "er_sde": 2}


@functools.cache
def humps():
    means = torch.tensor([[0.21], [-0.21]], dtype=torch.float64)
    stds, weights = torch.tensor([0.26, 0.17]), torch.tensor([0.6, 0.4])
    return kdiff.analytic.GaussianMixture(means, stds.double(), weights.double())


def there_and_back(model, x, name, **settings):
    """The latents, and where they lead."""
    latents = kdiff.invert(model, x, name, dtype=torch.float64, **settings)
    down = {**settings, "options": {**(REGISTRY[name].ode or {}), **settings.get("options", {})}}
    return latents, kdiff.sample(model, name, start=latents, dtype=torch.float64, **down)


@every_solver
def test_the_round_trip_converges_with_the_order(name):
    """At least: the leading errors of a step up and of one down can cancel."""
    x = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)[:, None]
    errors = []
    for steps in STEPS:
        _, back = there_and_back(humps(), x, name, steps=steps, **RANGE)
        errors.append(float((back - x).abs().mean()))
    slope = -np.polyfit(np.log(STEPS), np.log(errors), 1)[0]
    declared = REGISTRY[name].order(REGISTRY[name].with_defaults(REGISTRY[name].ode))
    declared = FIRST_STEPS.get(name, declared)
    assert slope > declared - 0.35, errors


@every_solver
def test_the_latents_are_those_of_the_exact_flow(name):
    x = torch.tensor([[0.9, -0.4], [0.1, 0.2]], dtype=torch.float64)
    exact = gaussian_solution(MEAN, STD, x, 0.02, 20.0)
    errors = []
    for steps in (48, 96):
        latents, _ = there_and_back(gaussian(MEAN, STD), x, name, steps=steps, **RANGE)
        errors.append(float((latents - exact).abs().max() / 20))
    # reverse_diffusion keeps half of the difference of two squares, which grow upward
    assert errors[1] < (0.2 if name == "reverse_diffusion" else 0.03)
    assert errors[1] < 0.6 * errors[0] or errors[1] < 2e-5


@every_solver
def test_a_run_upward_asks_and_counts_as_it_claims(name):
    s, grid = REGISTRY[name], [3.0, 1.4, 0.6, 0.2]
    plan = kdiff.plan(sampler=name, sigmas=grid, upward=True)
    assert list(plan.sigmas) == grid[::-1]
    *states, last = kdiff.drive(Pointwise(), plan, torch.ones(1, 3), kdiff.Noise([0], (3,)))
    assert last.nfe == plan.nfe == s.nfe(3, "sigma_min", plan.options) == len(states)
    assert sorted({state.step for state in states}) == [0, 1, 2]
    assert last.sigma == 3.0 and last.step == 3
    for state in states:
        last_of = 3 if name in LOOK_AHEAD else state.step + 1
        assert plan.sigmas[state.step] <= state.sigma <= plan.sigmas[last_of]
    if s.linear:
        tableau = trace(s, plan.sigmas, plan.options)
        assert [row.sigma for row in tableau.asks] == [state.sigma for state in states]


@every_solver
def test_few_steps_upward_are_finite(name):
    for steps in (1, 2, 3):
        latents = kdiff.invert(Pointwise(), torch.eye(3), name, steps=steps)
        assert latents.isfinite().all()


@pytest.mark.parametrize("sigmas", [[8.0, 4.0, 2.0, 1.0], [1.0, 2.0, 4.0, 8.0]])
def test_the_step_of_a_noise_level_in_both_directions(sigmas):
    assert [step_of(sigmas, s) for s in sigmas] == [0, 1, 2, 2]
    assert [step_of(sigmas, (s + t) / 2) for s, t in pairwise(sigmas)] == [0, 1, 2]
    assert step_of(sigmas, 2 * sigmas[0] - sigmas[1]) == 0
    assert step_of(sigmas, 2 * sigmas[-1] - sigmas[-2]) == 2


# --- kdiff.invert, and the start of kdiff.sample ---


def test_a_sampler_that_always_draws_noise_is_refused():
    noisy = REGISTRY["euler_ancestral"]
    for name, s in REGISTRY.items():
        if s.ode is None:
            with pytest.raises(ValueError, match=f"{name} always draws noise"):
                kdiff.invert(Pointwise(), torch.ones(1, 3), name)
    assert noisy.ode == {"eta": 0}
    with pytest.raises(ValueError, match="euler_ancestral runs upward without noise only: eta = 0"):
        kdiff.invert(Pointwise(), torch.ones(1, 3), "euler_ancestral", options={"eta": 0.5})


def test_what_cannot_be_inverted():
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="neither auto nor a tableau runs upward"):
        kdiff.invert(Pointwise(), x, "auto", nfe=5)
    for settings, message in [
        ({"sigmas": [3.0, 1.0, 0.0]}, "starts above 0"),
        ({"seeds": [1]}, "a seed for each of the 2 rows"),
        ({"seeds": 1}, "a seed for each of the 2 rows"),
        ({"final": "one"}, "final must be zero or sigma_min, not 'one'"),
        ({"seed": 3, "n": 3}, r"start must be \(3, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            kdiff.invert(Pointwise(), x, "ddim", **settings)
    for nothing in (None, [[1.0]], torch.tensor(1.0), torch.ones(2, 3, dtype=torch.int64)):
        for seeds in (None, [1]):
            with pytest.raises(ValueError, match="x must be a tensor of a floating-point dtype"):
                kdiff.invert(Pointwise(), nothing, "ddim", seeds=seeds)
    for wrong, message in [
        (torch.ones(2, 4), r"start must be \(2, 3\), a row for each seed, not \(2, 4\)"),
        (torch.ones(2, 3, dtype=torch.int64), "floating-point"),
        ([[1.0]], "must be a tensor"),
    ]:
        with pytest.raises(ValueError, match=message):
            kdiff.sample(Pointwise(), start=wrong, n=2)


def test_latents_start_the_rows_of_their_seeds_in_any_batch():
    latents = kdiff.invert(Pointwise(), torch.eye(3), "heun", steps=6)
    assert torch.equal(kdiff.invert(Pointwise(), torch.eye(3), "heun", steps=6, batch=2), latents)
    together = kdiff.sample(Pointwise(), "euler_ancestral", start=latents, seeds=[4, 9, 4])
    again = kdiff.sample(Pointwise(), "euler_ancestral", start=latents, seeds=[4, 9, 4], batch=2)
    alone = kdiff.sample(Pointwise(), "euler_ancestral", start=latents[1:2], seed=9)
    assert torch.equal(again, together) and torch.equal(alone, together[1:2])


def test_the_noise_of_a_seed_as_a_start_gives_its_sample():
    noise = kdiff.Noise([7, 8], (3,))
    start = 80 * noise.initial()
    found = kdiff.sample(Pointwise(), "dpmpp_2m", start=start, seeds=[7, 8], steps=5)
    assert torch.equal(found, kdiff.sample(Pointwise(), "dpmpp_2m", seeds=[7, 8], steps=5))


def test_seeds_of_an_inversion_add_noise_of_the_level_it_starts_at():
    x = torch.eye(3)
    noised = x + 0.5 * kdiff.Noise([3, 4, 5], (3,)).initial()
    settings = {"sigmas": [4.0, 2.0, 1.0, 0.5], "batch": 2}
    found = kdiff.invert(Pointwise(), x, "heun", seeds=[3, 4, 5], **settings)
    assert torch.equal(found, kdiff.invert(Pointwise(), noised, "heun", **settings))
    schedule = {"steps": 3, "sigma_min": 0.5, "sigma_max": 4.0, "guide": ()}
    at_schedule = kdiff.invert(Pointwise(), x, "heun", seeds=[3, 4, 5], **schedule)
    assert torch.equal(at_schedule, kdiff.invert(Pointwise(), noised, "heun", **schedule))


def test_conditions_and_guidance_reach_the_model():
    labels = [1, 2, 3]
    model = Pointwise()
    plain = kdiff.invert(model, torch.eye(3), "ddim", steps=3, cond={"class_labels": labels})
    for i, label in enumerate(labels):
        alone = kdiff.invert(model, torch.eye(3)[i : i + 1], "ddim", steps=3, class_labels=[label])
        assert torch.equal(alone[0], plain[i])
    guided = kdiff.invert(
        model, torch.eye(3), "ddim", steps=3, class_labels=labels, guide="cfg:scale=2"
    )
    assert not torch.equal(guided, plain)


def test_nfe_counts_as_with_an_end_at_sigma_min():
    plan = kdiff.plan(Pointwise(), "heun", nfe=10, upward=True)
    assert plan.steps == 5 and plan.nfe == 10 and plan.final == "sigma_min"


def test_upward_plans_run_in_lockstep():
    plans = [kdiff.plan(Pointwise(), name, steps=4, upward=True) for name in ("euler", "heun")]
    (only,) = lockstep(Pointwise(), plans, [5, 2])
    assert [outcome.error for outcome in only.outcomes] == [None, None]
