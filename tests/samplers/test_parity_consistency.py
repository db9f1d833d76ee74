"""The samplers of few-step students against diffusers' schedulers, and what they reduce to."""

import math
from types import SimpleNamespace

import pytest
import torch

import kdiff
from diffusers_parity import MODEL, START, TOLERANCE, distance, draws, kdiff_sample, table
from kdiff.samplers import Walk
from kdiff.samplers.consistency import jumps_and_noise

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def preserving(x, sigma):
    return x / math.hypot(1, sigma)


def sampled(walk, model=MODEL):
    while walk.ask is not None:
        walk.answer(model(walk.ask.x, walk.ask.sigma))
    return walk.result


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_lcm(steps, make):
    """The scheduler's boundary scaling, c_skip x + c_out x_0, is here the model's."""
    scheduler = make("LCMScheduler", steps)
    timesteps, sigmas = scheduler.timesteps.tolist(), table(scheduler)
    grid = [sigmas[t] for t in timesteps]

    def student(x, sigma):
        t = timesteps[grid.index(sigma)]
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(t)
        return c_skip * preserving(x, sigma) + c_out * MODEL(x, sigma)

    z = preserving(grid[0] * START, grid[0])
    for t, s in zip(timesteps, grid, strict=True):
        x = z * math.hypot(1, s)
        z = scheduler.step((x - MODEL(x, s)) / s, t, z).prev_sample
    noise = draws()
    sampler = kdiff.plan(sampler="lcm", sigmas=[*grid, 0.0])
    walk = sampler.sampler.start(
        grid[0] * START, sampler.sigmas, lambda s, t: next(noise), sampler.options
    )
    assert distance(sampled(Walk(walk), student), z) < TOLERANCE


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7, 1.0])
def test_tcd(gamma, make):
    """With the scheduler's own whole timesteps, floor((1 - gamma) t). Its last step adds no noise:
    the runs are compared where it begins."""
    scheduler = make("TCDScheduler", 5)
    timesteps, sigmas = scheduler.timesteps.tolist(), table(scheduler)
    grid = [sigmas[t] for t in timesteps]
    lows = {sigmas[t]: sigmas[math.floor((1 - gamma) * t)] for t in timesteps}
    z = preserving(grid[0] * START, grid[0])
    for t, s in list(zip(timesteps, grid, strict=True))[:-1]:
        x = z * math.hypot(1, s)
        z = scheduler.step((x - MODEL(x, s)) / s, t, z, eta=gamma).prev_sample
    theirs, noise = z * math.hypot(1, grid[-1]), draws()
    ours = jumps_and_noise(grid[0] * START, grid, lambda s, t: next(noise), lows.__getitem__)
    assert distance(sampled(Walk(ours)), theirs) < TOLERANCE
    # `tcd` itself has the time of the VP SDE, of which these timesteps are an approximation
    assert distance(kdiff_sample("tcd", grid, gamma=gamma), theirs) < 0.02


FLOW = [0.97, 0.8, 0.5, 0.2]


def flow(scheduler, **options):
    """The scheduler's result on these flow times, as x of the variance-exploding frame."""
    scheduler.set_timesteps(sigmas=FLOW, **options)
    z = (1 - FLOW[0]) * (FLOW[0] / (1 - FLOW[0])) * START
    for t, time in zip(scheduler.timesteps, FLOW, strict=True):
        x = z / (1 - time)
        velocity = (z - MODEL(x, time / (1 - time))) / time
        z = scheduler.step(velocity, t, z).prev_sample
    return z


def in_flow(name, **options):
    return kdiff_sample(name, [t / (1 - t) for t in FLOW] + [0.0], **options)


def flow_scheduler(name, monkeypatch, **config):
    import sys

    import diffusers

    kind, noise = getattr(diffusers, name), draws()
    module = sys.modules[kind.__module__]
    for source in ("randn_tensor",):
        monkeypatch.setattr(module, source, lambda *_, **__: next(noise), raising=False)
    return kind(**config)


def test_flow_match_euler(monkeypatch):
    """Their sigmas are float32."""
    scheduler = flow_scheduler("FlowMatchEulerDiscreteScheduler", monkeypatch)
    assert distance(in_flow("euler"), flow(scheduler)) < 1e-5


def test_flow_match_euler_with_stochastic_sampling_is_lcm(monkeypatch):
    scheduler = flow_scheduler(
        "FlowMatchEulerDiscreteScheduler", monkeypatch, stochastic_sampling=True
    )
    noise = draws()
    monkeypatch.setattr(torch, "randn_like", lambda x: next(noise).to(x))
    assert distance(in_flow("lcm"), flow(scheduler)) < 1e-5


def test_flow_match_lcm(monkeypatch):
    scheduler = flow_scheduler("FlowMatchLCMScheduler", monkeypatch)
    assert distance(in_flow("lcm"), flow(scheduler)) < 1e-5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("tcd", {"gamma": 0}), ("euler", {})),
        (("ctm", {"gamma": 0}), ("euler", {})),
        (("tcd", {"gamma": 1}), ("lcm", {})),
        (("ctm", {"gamma": 1}), ("lcm", {})),
        (("consistency", {"epsilon": 0}), ("lcm", {})),
    ],
    ids=str,
)
def test_what_they_reduce_to(one, other):
    sigmas = kdiff.schedule("karras", 6)
    found, expected = (kdiff_sample(name, sigmas, **options) for name, options in (one, other))
    assert distance(found, expected) < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_consistency_model(steps, make):
    """The scheduler scales the input and the output, as here the preconditioner does. Some of its
    numbers are float32."""

    def network(z, c_noise):
        return torch.sin(2 * z + c_noise[:, None] / 500)

    scheduler = make("CMStochasticIterativeScheduler", steps, clip_denoised=False)
    grid = [*scheduler.sigmas.tolist()[:-1], 0.0]
    x, noise = grid[0] * START, draws()
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t.expand(len(x)))
        x = scheduler.step(output, t, x).prev_sample
    source = SimpleNamespace(white=lambda s, t: next(noise))
    model = kdiff.Denoiser(network, "consistency", shape=(3,))
    plan = kdiff.plan(sampler="CMStochasticIterativeScheduler", sigmas=grid)
    *_, last = kdiff.drive(model, plan, grid[0] * START, source)
    assert distance(last.x, x) < 1e-5


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm_without_its_boundary_scaling(steps, make):
    """At the timesteps that students are trained for, it is less than rounding: x0 is all."""
    scheduler = make("LCMScheduler", steps)
    grid = [table(scheduler)[t] for t in scheduler.timesteps.tolist()]
    z = preserving(grid[0] * START, grid[0])
    for t, s in zip(scheduler.timesteps.tolist(), grid, strict=True):
        x = z * math.hypot(1, s)
        z = scheduler.step((x - MODEL(x, s)) / s, t, z).prev_sample
    assert distance(kdiff_sample("lcm", [*grid, 0.0]), z) < 1e-5


def test_consistency_against_algorithm_1():
    sigmas, epsilon = [80.0, 5.0, 0.6, 0.002], 0.002
    noise = draws()
    x = MODEL(80.0 * START, 80.0)
    for t in sigmas[1:-1]:
        x = MODEL(x + math.sqrt(t**2 - epsilon**2) * next(noise), t)
    assert distance(kdiff_sample("consistency", sigmas), x) < 1e-12


def test_ctm_keeps_the_marginals_of_a_gaussian():
    """From N(0, 1 + s^2) by many steps: each has the variance of its level."""
    exact = kdiff.analytic.gaussian(torch.zeros(1, dtype=torch.float64), 1.0)
    white = kdiff.Noise([1], (4000,), torch.float64)
    source = SimpleNamespace(white=lambda s, t: white.white(s, t).T)
    plan = kdiff.plan(sampler="ctm", sigmas=kdiff.schedule("karras", 60), options={"gamma": 0.4})
    *_, last = kdiff.drive(exact, plan, 80 * white.initial().T, source)
    assert float(last.x.std()) == pytest.approx(1, abs=0.08)
