"""What samplers may say: stages, early ends, repeated noise, several asks, asks about some samples,
adaptive steps, gradients."""

import re

import pytest
import torch

import kdiff
import odd_samplers
from exact_models import Pointwise
from kdiff.analytic import gaussian_solution
from kdiff.driver import TooManyEvaluations
from kdiff.lockstep import lockstep
from kdiff.model import as_model, network_nfe
from kdiff.samplers import REGISTRY, Ask, Sampler, sampler
from kdiff.samplers.outline import Draw
from kdiff.samplers.tableau import trace
from odd_samplers import adaptive, local, plan_of, states_of

TO_ZERO, TO_SIGMA_MIN = [8.0, 3.0, 1.0, 0.3, 0.0], [8.0, 3.0, 1.0, 0.3]
GRIDS = {"zero": TO_ZERO, "sigma_min": TO_SIGMA_MIN}
ODD = {name: s for name, s in vars(odd_samplers).items() if isinstance(s, Sampler)}
FIXED = {name: s for name, s in ODD.items() if s.limit is None}


def result(plan, seeds=(5, 2, 9), **arguments):
    return states_of(plan, seeds, **arguments)[-1].x


# --- all of them ---


@pytest.mark.parametrize("final", GRIDS)
@pytest.mark.parametrize("name", FIXED)
def test_the_evaluations_claimed_are_those_made(name, final):
    plan = plan_of(FIXED[name], GRIDS[final])
    *states, last = states_of(plan)
    assert plan.sampler.nfe(plan.steps, final) == plan.nfe == last.nfe == last.asks
    assert list(plan.levels) == [s.sigma for s in states][: plan.nfe]
    assert all(0 <= state.step < plan.steps for state in states)
    assert last.step == plan.steps and last.x.isfinite().all()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_a_seed_is_a_picture_in_any_batch_and_in_lockstep(name, deterministic):
    plan = plan_of(ODD[name], TO_ZERO)
    expected = result(plan)
    for i, seed in enumerate((5, 2, 9)):
        assert torch.equal(result(plan, [seed], deterministic=deterministic)[0], expected[i])
    euler = kdiff.plan(sampler="euler", sigmas=TO_ZERO)
    plans = [euler, plan, plan_of(ODD[name], TO_SIGMA_MIN), plan]
    (only,) = lockstep(Pointwise(), plans, [5, 2, 9], deterministic=deterministic)
    assert [outcome.error for outcome in only.outcomes] == [None] * 4
    for plan, outcome in zip(plans, only.outcomes, strict=True):
        assert torch.equal(outcome.x, result(plan))
    assert only.asked == sum(len(states_of(plan)) - 1 for plan in plans)


@pytest.mark.parametrize("shape", [(), (2, 5), (2, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("name", ODD)
def test_any_shape(name, shape):
    plan = plan_of(ODD[name], TO_ZERO)
    assert result(plan, shape=shape, model=Pointwise(shape)).shape == (3, *shape)


@pytest.mark.parametrize("name", ODD)
def test_no_graph_is_left_in_the_states(name):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    for no_grad in (torch.no_grad, torch.enable_grad):
        with no_grad():
            states = states_of(
                plan_of(ODD[name], TO_ZERO), model=lambda x, sigma: weight * x, shape=(3,)
            )
        assert not any(s.x.requires_grad or s.denoised.requires_grad for s in states)


@pytest.mark.parametrize("name", [n for n, s in FIXED.items() if s.linear])
def test_linear_ones_are_traced(name):
    plan = plan_of(FIXED[name], TO_SIGMA_MIN)
    tableau, noise = trace(plan.sampler, plan.sigmas), kdiff.Noise([4], (3,), torch.float64)
    x = 8 * noise.initial()
    *states, last = kdiff.drive(Pointwise(), plan, x, noise)
    values = {"x_T": x} | {f"D{i}": state.denoised for i, state in enumerate(states, 1)}
    for i, (s, t, draw, stream) in enumerate(tableau.draws, 1):
        values[f"n{i}"] = getattr(noise, plan.sampler.noise)(s, t, draw, stream=stream)
    found = sum(c * values[symbol] for symbol, c in tableau.result.terms.items())
    torch.testing.assert_close(found, last.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["clipping", "descending", "adaptive"])
def test_others_are_refused_a_trace(name):
    with pytest.raises(ValueError, match=f"{name} is not linear in what it is given"):
        trace(ODD[name], TO_ZERO)


# --- one by one ---


def test_three_stages_are_of_order_three():
    x, mean = torch.full((1, 3), 6.0, dtype=torch.float64), Pointwise().mean(torch.zeros(1, 3))
    exact = gaussian_solution(mean.double(), 0.5, x, 4.0, 0.5)
    errors = []
    for n in (40, 80):
        grid = [4.0 - 3.5 * i / n for i in range(n + 1)]
        *_, last = kdiff.drive(
            Pointwise(), plan_of(odd_samplers.three_stages, grid), x, kdiff.Noise([0], (3,))
        )
        errors.append(float((last.x - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.15)


def test_an_early_end():
    plan = plan_of(odd_samplers.early_end, TO_ZERO, most=3)
    *states, last = states_of(plan)
    assert (plan.nfe, plan.sampler.nfe(2, "zero", {"most": 3})) == (3, 2)
    assert torch.equal(last.x, states[-1].denoised) and states[-1].sigma == 1.0


def test_restarts_draw_again_on_one_interval():
    plan = plan_of(odd_samplers.back_and_forth, [3.0, 1.0, 0.0], times=2)
    assert plan.outline.draws == [Draw(1.0, 3.0, 1), Draw(1.0, 3.0, 2)]
    first, second, third, fourth, _ = states_of(plan, model=lambda x, sigma: 0 * x, shape=(3,))
    asked = [(s.step, s.sigma) for s in (first, second, third, fourth)]
    assert asked == [(0, 3), (0, 3), (0, 3), (1, 1)]
    once, twice = second.x - first.x / 3, third.x - second.x / 3
    noise = kdiff.Noise([5, 2, 9], (3,))
    torch.testing.assert_close(once, 8**0.5 * noise.white(1.0, 3.0, 1))
    torch.testing.assert_close(twice, 8**0.5 * noise.white(1.0, 3.0, 2))
    assert plan.sampler.stochastic() and not plan.sampler.stochastic({"times": 0})


def test_a_budget_of_evaluations_that_are_not_the_same_in_each_step():
    s = odd_samplers.back_and_forth
    assert [s.nfe(n) for n in (1, 2, 3)] == [1, 4, 7]
    assert [s.steps(n) for n in (1, 3, 4, 6, 7)] == [1, 1, 2, 2, 3]
    assert odd_samplers.three_stages.steps(7, "sigma_min") == 2
    with pytest.raises(ValueError, match="nfe of three_stages must be a whole number, at least 3"):
        odd_samplers.three_stages.steps(2, "sigma_min")


def test_several_asks_at_once_are_answered_in_their_order():
    *states, _ = states_of(plan_of(odd_samplers.paired, TO_ZERO))
    assert [s.sigma for s in states] == [8, 4, 3, 1.5, 1, 0.5, 0.3, 0.15]
    assert [s.step for s in states][:4] == [0, 0, 1, 1]
    for s in states:
        assert torch.equal(s.denoised, Pointwise()(s.x, s.sigma))


def test_an_auxiliary_noise_is_another_one():
    plan = plan_of(odd_samplers.two_noises, [3.0, 1.0])
    assert plan.outline.draws == [Draw(3.0, 1.0), Draw(3.0, 1.0, 0, "momentum")]
    noise = kdiff.Noise([5, 2, 9], (3,))
    *_, last = states_of(plan, model=lambda x, sigma: 0 * x, shape=(3,))
    drawn = noise.brownian(3.0, 1.0) + noise.brownian(3.0, 1.0, stream="momentum")
    torch.testing.assert_close(last.x, 3 * noise.initial() / 6 + drawn / 2)
    assert plan.sampler.stochastic()  # it has no ODE settings


def test_asks_about_one_sample_count_for_it_alone():
    *states, last = states_of(plan_of(odd_samplers.clipping, TO_ZERO))
    assert [s.nfe for s in states] == [1, 2, 3, 4] + [4] * 8
    assert [s.step for s in states][:4] == [0, 1, 2, 3]
    assert (last.nfe, last.asks) == (4, 4)


def test_a_gradient_through_the_denoiser():
    """D = m + v (x - m) has the gradient v D of |D|^2 / 2."""
    plan = plan_of(odd_samplers.descending, [3.0, 0.0], rate=0.4)
    x = 3 * kdiff.Noise([5, 2, 9], (3,)).initial()
    d, v = Pointwise()(x, 3.0), 0.25 / 9.25
    for deterministic in (False, True):
        torch.testing.assert_close(result(plan, deterministic=deterministic), d - 0.4 * v * d)


# --- adaptive ---


def test_an_adaptive_sampler_keeps_its_tolerance():
    x = 8 * kdiff.Noise([5, 2, 9], (3,), torch.float64).initial()
    exact = gaussian_solution(Pointwise().mean(x), 0.5, x, 8.0, 0.3)
    errors = []
    for tolerance in (0.1, 0.01, 0.001):
        plan = plan_of(adaptive, TO_SIGMA_MIN, tolerance=tolerance)
        *_, last = states_of(plan, dtype=torch.float64)
        errors.append(float((last.x - exact).abs().max()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.002


def test_each_sample_has_its_own_number_of_steps():
    plan = plan_of(adaptive, TO_ZERO)
    alone = [states_of(plan, [seed])[-1].nfe for seed in (5, 2, 9)]
    together = states_of(plan)
    assert len(set(alone)) > 1
    assert together[-1].nfe == together[-1].asks == max(alone)
    assert len(together) - 1 == sum(alone)


def test_what_is_not_known_before_the_run_is_none():
    plan = plan_of(adaptive, TO_ZERO)
    assert plan.nfe is plan.levels is plan.outline is plan.record()["nfe"] is None
    assert adaptive.nfe(5) is None and plan.limit == 200
    assert network_nfe(as_model(Pointwise()), plan) is None
    with pytest.raises(ValueError, match="adaptive is adaptive: it takes no fixed nfe; give steps"):
        adaptive.steps(10)


def test_an_adaptive_sampler_has_a_limit():
    plan = plan_of(adaptive, TO_ZERO, tolerance=1e-9, limit=30)
    with pytest.raises(TooManyEvaluations) as error:
        states_of(plan)
    assert re.fullmatch(
        r"adaptive has not ended after 30 evaluations, at sigma = [\d.]+: allow it more, or larger "
        "errors",
        str(error.value),
    )
    (only,) = lockstep(Pointwise(), [plan, plan_of(adaptive, TO_ZERO)], [5, 2])
    assert isinstance(only.outcomes[0].error, TooManyEvaluations)
    assert only.outcomes[1].x.isfinite().all()


@pytest.mark.parametrize("wrong", [{"nfe": None}, {"limit": 9}])
def test_a_limit_belongs_to_an_adaptive_sampler(wrong):
    with pytest.raises(ValueError, match="nfe=None, for an adaptive sampler, goes with a limit"):
        sampler("wrong", order=1, paper="none", **wrong)
    assert "wrong" not in REGISTRY


CONDITIONS = {
    "class_labels": [1, 3, 2],
    "prompts": ["a", "bbb", "cc"],
    "lift": kdiff.Shared(torch.tensor([0.5, -0.5, 0.25])),
}


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("which", ["adaptive", "clipping"])
def test_conditions_go_with_the_samples_that_are_asked_about(which, deterministic):
    plan = plan_of(ODD[which], TO_ZERO)
    together = result(plan, cond=CONDITIONS, deterministic=deterministic)
    for i, seed in enumerate((5, 2, 9)):
        own = {k: v[i : i + 1] for k, v in CONDITIONS.items() if k != "lift"}
        alone = result(plan, [seed], cond={**own, "lift": CONDITIONS["lift"]})
        assert torch.equal(together[i], alone[0])
    assert not torch.equal(together, result(plan))


def test_in_lockstep_equal_samples_with_other_conditions_are_not_taken_for_each_other():
    """One seed three times, in three classes; one plan asks about them in another order."""

    @local(linear=False)
    def backwards(x, sigmas):
        d = yield Ask(x.flip(0), sigmas[0], rows=range(len(x))[::-1])
        return d.flip(0)

    cond = {"class_labels": [1, 3, 2]}
    plans = [plan_of(backwards, [8.0, 0.0]), kdiff.plan(sampler="euler", sigmas=[8.0, 0.0])]
    for some in (plans, plans[::-1]):
        (only,) = lockstep(Pointwise(), some, [4, 4, 4], cond=cond)
        for outcome in only.outcomes:
            assert torch.equal(outcome.x, result(plans[1], [4, 4, 4], cond=cond))


def test_a_sample_may_be_asked_about_twice_at_once():
    @local(linear=False, nfe=lambda steps, final, options: 2)
    def doubled(x, sigmas):
        rows = [*range(len(x))] * 2
        d = yield Ask(torch.cat([x, -x]), sigmas[0], rows=rows)
        return d.chunk(2)[0]

    assert states_of(plan_of(doubled, [8.0, 0.0]))[-1].nfe == 2
