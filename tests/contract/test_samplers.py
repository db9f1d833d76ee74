"""What every registered sampler must do, with every set of options that it names itself.

Its order is measured in tests/samplers/test_order.py.
"""

import math

import pytest
import torch

import kdiff
from exact_models import Pointwise, two_humps
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY, Walk
from kdiff.samplers.tableau import trace
from kdiff.schedules import FINALS

SHAPES = [(), (3,), (2, 5), (3, 8), (3, 8, 8), (2, 3, 4, 4)]


def option_sets(name: str) -> list[dict]:
    """By default, as a solver of the ODE, and each preset."""
    s = REGISTRY[name]
    every = [{}, dict(s.ode or {}), *(dict(preset) for preset in s.presets.values())]
    return [options for i, options in enumerate(every) if options not in every[:i]]


# These look ahead: a step also asks at the levels of the steps after it.
LOOK_AHEAD = ("heunpp2",)
# These multiply differences of eps, and their rounding, by long steps over octaves.
ROUNDS_MORE = {"dpm_fast": 5}
CASES = [
    pytest.param(name, options, id=f"{name}-{options}")
    for name, s in REGISTRY.items()
    if s.limit is None  # adaptive ones: test_adaptive.py
    for options in option_sets(name)
]
every_case = pytest.mark.parametrize(("name", "options"), CASES)
both_endings = pytest.mark.parametrize("final", FINALS)


def planned(name: str, options: dict, steps: int, final: str = "zero") -> kdiff.Plan:
    return kdiff.plan(Pointwise(), name, steps=steps, final=final, options=options)


class Counted:
    """Noise that remembers what was drawn of it."""

    def __init__(self, noise: kdiff.Noise):
        self.noise, self.drawn = noise, []

    def white(self, s, t, draw=0, *, stream=""):
        self.drawn.append(("white", s, t, draw, stream))
        return self.noise.white(s, t, draw, stream=stream)

    def brownian(self, s, t, draw=0, *, stream=""):
        self.drawn.append(("brownian", s, t, draw, stream))
        return self.noise.brownian(s, t, draw, stream=stream)


# --- what it claims ---


@both_endings
@every_case
def test_its_evaluations_are_those_it_claims(name, options, final):
    for steps in (1, 2, 3, 8):
        plan = planned(name, options, steps, final)
        x, noise = torch.ones(2, 3), kdiff.Noise([0, 1], (3,))
        source = None if plan.sampler.noise is None else getattr(noise, plan.sampler.noise)
        walk, asked = Walk(plan.sampler.start(x, plan.sigmas, source, plan.options)), []
        while walk.ask is not None:
            asked.append(walk.ask.sigma)
            walk.answer(0 * walk.ask.x)
        *states, last = kdiff.drive(Pointwise(), plan, x, noise)
        claimed = plan.sampler.nfe(steps, final, plan.options)
        assert claimed == plan.nfe == last.nfe == last.asks == len(states) == len(asked)
        assert list(plan.levels) == asked == [state.sigma for state in states]
        assert [state.nfe for state in states] == list(range(1, claimed + 1))


@both_endings
@every_case
def test_the_steps_of_its_evaluations_are_those_of_the_grid(name, options, final):
    plan = planned(name, options, 6, final)
    *states, last = kdiff.drive(Pointwise(), plan, torch.ones(1, 3), kdiff.Noise([0], (3,)))
    assert last.step == 6 and last.sigma == plan.sigmas[-1]
    assert sorted({state.step for state in states}) == list(range(6))
    for step, before in zip(states[1:], states, strict=False):
        assert 0 <= step.step - before.step <= 1
    for state in states:  # churn raises the level above its step's start, by sqrt(2) at most
        high, low = plan.sigmas[state.step : state.step + 2]
        low = plan.sigmas[-1] if name in LOOK_AHEAD else low
        assert low <= state.sigma * (1 + 1e-12)  # the middle of a step may lie there
        assert state.sigma <= (math.inf if name == "restart" else high * math.sqrt(2) * (1 + 1e-12))


@every_case
def test_it_draws_noise_if_it_says_so(name, options):
    plan = planned(name, options, 4, "sigma_min")
    noise = Counted(kdiff.Noise([0], (3,)))
    list(kdiff.drive(Pointwise(), plan, torch.ones(1, 3), noise))
    assert bool(noise.drawn) == plan.sampler.stochastic(options)
    assert {kind for kind, *_ in noise.drawn} <= {plan.sampler.noise}
    assert [draw[1:] for draw in noise.drawn] == plan.outline.draws
    assert len(set(noise.drawn)) == len(noise.drawn)  # one interval twice would be one noise twice


@pytest.mark.parametrize("name", REGISTRY)
def test_its_ode_settings_draw_none(name):
    s = REGISTRY[name]
    assert s.ode is None or not s.stochastic(s.ode)
    assert s.noise is None or s.ode != {}


@both_endings
@every_case
def test_its_trace_reproduces_a_run(name, options, final):
    plan = planned(name, options, 5, final)
    if not plan.sampler.linear:
        with pytest.raises(ValueError, match="it has no tableau"):
            trace(plan.sampler, plan.sigmas, options)
        return
    tableau = trace(plan.sampler, plan.sigmas, options)
    noise = kdiff.Noise([3, 4], (2,), torch.float64)
    x = 80 * noise.initial()
    *states, last = kdiff.drive(two_humps(), plan, x, noise)
    values = {"x_T": x} | {f"D{i}": state.denoised for i, state in enumerate(states, 1)}
    for i, draw in enumerate(tableau.draws, 1):
        source = getattr(noise, plan.sampler.noise)
        values[f"n{i}"] = source(draw.s, draw.t, draw.draw, stream=draw.stream)
    found = sum(c * values[symbol] for symbol, c in tableau.result.terms.items())
    torch.testing.assert_close(found, last.x, rtol=1e-11, atol=1e-11)


# --- what holds for all ---


@both_endings
@every_case
def test_few_steps_are_finite(name, options, final):
    for steps in (1, 2, 3):
        for model in (Pointwise(), kdiff.analytic.data_set(torch.eye(3))):
            x = kdiff.sample(model, name, steps=steps, final=final, options=options, n=3)
            assert x.isfinite().all()


@every_case
def test_a_seed_is_the_same_sample_in_any_batch(name, options):
    def sample(**which):
        return kdiff.sample(Pointwise(), name, steps=5, options=options, **which)

    together = sample(seeds=[5, 2, 9, 7])
    assert torch.equal(sample(seeds=[5, 2, 9, 7], batch=3), together)
    for i, seed in enumerate([5, 2, 9, 7]):
        assert torch.equal(sample(seed=seed)[0], together[i])
    assert not torch.equal(together[0], together[1])


@every_case
def test_in_lockstep_it_gives_the_bits_it_gives_alone(name, options):
    plans = [planned(name, options, 5), planned("euler", {}, 5), planned(name, options, 4)]
    (only,) = lockstep(Pointwise(), plans, [5, 2, 9])
    for plan, outcome in zip(plans, only.outcomes, strict=True):
        ((_, states),) = kdiff.run(Pointwise(), plan, [5, 2, 9])
        *_, last = states
        assert outcome.error is None and torch.equal(outcome.x, last.x)
    assert only.asked == sum(plan.nfe for plan in plans)
    assert only.computed < only.asked  # all start alike


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@every_case
def test_its_state_has_the_dtype_it_is_given(name, options, dtype):
    """In float64 as exactly as can be, and in others as close to that as their rounding allows."""
    # At small sigmas the score of this model is next to 0: steps that divide by it are endless.
    low = 1.0 if name == "predictor_corrector" else 0.002
    x, sigmas = [[40.0, -90.0, 8.0]], kdiff.schedule("karras", 6, sigma_min=low)
    plan = kdiff.plan(sampler=name, sigmas=sigmas, options=options)
    ends = []
    for kind in (dtype, torch.float64):
        noise = kdiff.Noise([1], (3,), kind)
        states = list(kdiff.drive(Pointwise(), plan, torch.tensor(x, dtype=kind), noise))
        assert {state.x.dtype for state in states} == {kind}
        assert {state.denoised.dtype for state in states} == {kind}
        ends.append(states[-1].x.double())
    error = (ends[0] - ends[1]).abs().max()
    assert error <= 100 * ROUNDS_MORE.get(name, 1) * torch.finfo(dtype).eps  # of numbers up to 90


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_any_shape_gives_what_its_numbers_in_a_row_give(name, shape):
    """Scalars, point sets, tokens, audio, images and video: a sampler does not look at the axes."""
    flat = (max(1, math.prod(shape)),)
    x = kdiff.sample(Pointwise(shape), name, steps=3, n=2)
    assert x.shape == (2, *shape)
    assert torch.equal(x.flatten(), kdiff.sample(Pointwise(flat), name, steps=3, n=2).flatten())


# --- gradients ---


@every_case
def test_a_run_can_be_differentiated(name, options):
    """Against finite differences, by torch's own check."""
    plan = kdiff.plan(sampler=name, sigmas=[3.0, 1.4, 0.6, 0.2], options=options)

    def end(x):
        noise = kdiff.Noise(range(len(x)), x.shape[1:], x.dtype)
        *_, last = kdiff.drive(two_humps(), plan, x, noise, grad=True)
        return last.x

    x = torch.tensor([[0.4, -2.0], [2.5, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, x)


@every_case
def test_no_graph_is_left_unless_asked_for(name, options):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    x = torch.ones(1, 3, requires_grad=True)
    plan = planned(name, options, 4)
    for grad in (False, True):
        *_, last = states = list(
            kdiff.drive(lambda x, sigma: weight * x, plan, x, kdiff.Noise([0], (3,)), grad=grad)
        )
        assert last.x.requires_grad == grad
        assert grad or not any(s.x.requires_grad or s.denoised.requires_grad for s in states)
    for wrt in torch.autograd.grad(last.x.sum(), [x, weight]):
        assert wrt.abs().sum() > 0
