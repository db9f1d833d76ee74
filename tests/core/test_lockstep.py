"""Plans in lockstep: the bits of each alone, and no answer computed twice."""

import pytest
import torch

import kdiff
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY
from small_networks import Network

GAUSSIAN = kdiff.analytic.gaussian(torch.tensor([0.5, -1.0, 2.0]))


@pytest.fixture(scope="module")
def model() -> kdiff.Denoiser:
    return kdiff.Denoiser(Network(), "edm", shape=(3, 8, 8))


class Counted:
    """A model that keeps what it is asked."""

    def __init__(self, model):
        self.model, self.asks = model, []
        self.shape, self.sigma_min, self.sigma_max = model.shape, model.sigma_min, model.sigma_max
        self.sigmas = None

    def __call__(self, x, sigma, **cond):
        self.asks.append((sigma, x.numpy().tobytes()))
        return self.model(x, sigma, **cond)


def results(model, plans, seeds, **arguments):
    rounds = list(lockstep(model, plans, seeds, **arguments))
    assert [s for r in rounds for s in r.seeds] == list(seeds)
    outcomes = zip(*(r.outcomes for r in rounds), strict=True)
    return [torch.cat([o.x for o in parts]) for parts in outcomes]


# --- each plan as if alone ---


@pytest.mark.parametrize("deterministic", [False, True])
def test_every_sampler_gives_the_bits_it_gives_alone(model, deterministic):
    cases = [(name, steps) for name in REGISTRY for steps in (2, 5)]
    plans = [kdiff.plan(model, name, steps=steps) for name, steps in cases]
    arguments = {"batch": 3, "deterministic": deterministic}
    labels = [4, 1, 0, 9, 4]
    found = results(model, plans, range(7, 12), cond={"class_labels": labels}, **arguments)
    for (name, steps), x in zip(cases, found, strict=True):
        alone = kdiff.sample(
            model, name, steps=steps, seeds=range(7, 12), class_labels=labels, **arguments
        )
        assert torch.equal(x, alone), (name, steps)


def test_plans_that_start_at_different_noise_levels(model):
    plans = [kdiff.plan(model, "heun", steps=3, sigma_max=s) for s in (80, 20, 80)]
    found = results(model, plans, range(2))
    for x, s in zip(found, (80, 20, 80), strict=True):
        assert torch.equal(x, kdiff.sample(model, "heun", steps=3, sigma_max=s, n=2))


# --- what is shared ---


def test_plans_that_start_alike_have_their_first_ask_in_common():
    counted = Counted(GAUSSIAN)
    plans = [kdiff.plan(GAUSSIAN, "dpmpp_2m", steps=n) for n in (4, 5, 6, 7)]
    (only,) = lockstep(counted, plans, range(4))
    assert (only.asked, only.computed) == (4 + 5 + 6 + 7, 4 + 5 + 6 + 7 - 3)
    assert len(counted.asks) == only.computed


def test_samplers_on_one_grid_share_until_they_part():
    """Euler 10, Heun 19 and midpoint 19 asks: the first is common to all, and Heun's second, at
    the end of an Euler step, is Euler's. DDIM with eta = 0 is Euler."""
    names = ("euler", "heun", "dpm_2", "ddim")
    plans = [kdiff.plan(GAUSSIAN, name, steps=10) for name in names]
    (only,) = lockstep(GAUSSIAN, plans, range(4))
    assert (only.asked, only.computed) == (10 + 19 + 19 + 10, 10 + (19 - 2) + (19 - 1))


# Adaptive ones ask about some rows at a time, and again where they were before.
FIXED = [name for name, s in REGISTRY.items() if s.limit is None]


@pytest.mark.parametrize("batch", [5, 2])
def test_no_equal_ask_is_answered_twice(batch):
    """Counted on all samplers alone: as many answers as there are different (sigma, x). Plans that
    have parted are not compared any more; one in two hundred asks is equal by chance."""
    plans = [kdiff.plan(GAUSSIAN, name, steps=n) for name in FIXED for n in (3, 6)]
    plans += [kdiff.plan(GAUSSIAN, "heun", steps=6, options={"S_churn": 4}), plans[0]]
    plans += [kdiff.plan(GAUSSIAN, "euler", steps=6, options={"S_churn": 4})]
    alone = Counted(GAUSSIAN)
    for plan in plans:
        for _, states in kdiff.run(alone, plan, range(5), batch=batch):
            assert list(states)
    together = Counted(GAUSSIAN)
    rounds = list(lockstep(together, plans, range(5), batch=batch))
    assert len(alone.asks) == sum(r.asked for r in rounds)
    assert sum(r.computed for r in rounds) == len(together.asks)
    assert len(set(alone.asks)) <= len(together.asks) < 1.005 * len(set(alone.asks))
    assert set(together.asks) == set(alone.asks)
    assert len(together.asks) < 0.8 * len(alone.asks)


def test_plans_that_have_parted_are_not_compared(model, monkeypatch):
    """A comparison makes the host wait for a GPU. Plans are compared until they differ once."""
    compared = []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: compared.append(equal(a, b)) or compared[-1])
    names = ("dpmpp_2m", "dpmpp_3m", "lms", "unipc")
    plans = [kdiff.plan(model, name, steps=12) for name in names]
    (only,) = lockstep(model, plans, range(2))
    assert only.asked == 4 * 12
    assert len(compared) <= 12


def test_time_of_a_shared_answer_counts_for_each_that_gets_it(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("kdiff.lockstep.time.perf_counter", lambda: next(clock))
    plan = kdiff.plan(GAUSSIAN, "euler", steps=5)
    (only,) = lockstep(GAUSSIAN, [plan, plan], range(2))
    first, second = only.outcomes
    # A tick to compute, and two around it for who does; a last state without an ask.
    assert (first.seconds, second.seconds) == (5 * 3 + 1, 5 * (1 + 1) + 1)


# --- states and failures ---


def test_the_callback_sees_every_state():
    plans = [kdiff.plan(GAUSSIAN, "euler", steps=3), kdiff.plan(GAUSSIAN, "heun", steps=3)]
    seen = [[], []]
    (only,) = lockstep(GAUSSIAN, plans, range(2), callback=lambda i, state: seen[i].append(state))
    assert [[s.nfe for s in states] for states in seen] == [[1, 2, 3, 3], [1, 2, 3, 4, 5, 5]]
    for outcome, states in zip(only.outcomes, seen, strict=True):
        assert torch.equal(outcome.x, states[-1].x)


def test_a_plan_that_fails_stays_failed_and_the_others_go_on():
    calls = 0

    def failing(x, sigma):
        nonlocal calls
        calls += sigma == 3
        return x / 0 if sigma == 3 else GAUSSIAN(x, sigma)

    good, bad = ([9, 1, 0.5, 0], [9, 3, 1, 0])
    plans = [kdiff.plan(sampler="euler", sigmas=s) for s in (bad, good)]
    first, second = lockstep(failing, plans, range(4), batch=2, shape=(3,))
    for part in (first, second):
        failed, went_on = part.outcomes
        assert failed.x is None and isinstance(failed.error, kdiff.NonFiniteError)
        assert "not finite in step 2 of 3 (euler), at sigma = 3" in str(failed.error)
        alone = kdiff.sample(GAUSSIAN, "euler", sigmas=good, seeds=list(part.seeds))
        assert went_on.error is None and torch.equal(went_on.x, alone)
    assert calls == 1  # the second batch does not try again


def test_a_failing_model_fails_each_plan_that_asks_it():
    def failing(x, sigma):
        raise RuntimeError("out of memory")

    plans = [kdiff.plan(sampler="euler", sigmas=[2, 1, 0])] * 2
    (only,) = lockstep(failing, plans, range(2), shape=(1,))
    assert [str(o.error) for o in only.outcomes] == ["out of memory"] * 2


def test_wrong_arguments_are_refused_as_in_sample():
    plan = kdiff.plan(GAUSSIAN)
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1, not 0"):
        list(lockstep(GAUSSIAN, [plan], range(2), batch=0))
    with pytest.raises(ValueError, match="nothing to sample"):
        list(lockstep(GAUSSIAN, [plan], []))
