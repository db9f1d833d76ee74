"""Samplers and edits of every kind, and the loop of a pipeline around KDiffScheduler."""

import math
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated

import diffusers
import torch

import adaptive_samplers
import kdiff
from adaptive_samplers import euler
from kdiff.compat.diffusers import KDiffScheduler
from kdiff.editing import EDITS, edit
from kdiff.samplers import REGISTRY, Ask, Option, sampler

SEEDS = [3, 4]
SHAPE = (3, 4, 4)
STEPS = 5
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "eps": diffusers.DDIMScheduler(**BETAS, clip_sample=False).config,
    "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config,
}
KEEP = (torch.arange(4) < 2).double()


def three_stages(x, sigmas):
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t:
            middle = math.sqrt(s * t)
            d = yield euler(x, d, s, middle), middle
            d = yield euler(x, d, s, (middle + t) / 2), (middle + t) / 2
        x = euler(x, d, s, t)
    return x


def restarting(x, sigmas, *, noise):
    """Goes back from the third level to the second twice, with new noise each time."""
    for i, (s, t) in enumerate(pairwise(sigmas)):
        x = euler(x, (yield x, s), s, t)
        for draw in (1, 2) if i == 1 else ():
            x = x + math.sqrt(s**2 - t**2) * noise(s, t, draw=draw)
            x = euler(x, (yield x, s), s, t)
    return x


def corrected_at_the_end(x, sigmas):
    for s, t in pairwise(sigmas):
        last, d = x, (yield x, s)
        x = euler(x, d, s, t)
    if t:
        x = (x + euler(last, (yield x, t), s, t)) / 2
    return x


def ending_early(x, sigmas):
    for s, t in pairwise(sigmas[:4]):
        d = yield x, s
        x = euler(x, d, s, t)
    return d


def asking_lists(x, sigmas):
    for s, t in pairwise(sigmas):
        near = (2 * s + t) / 3
        d, other = yield [(x, s), Ask(0.99 * x, near)]
        x = euler(x, (3 * d + other) / 4, s, t)
    return x


def drawing_streams(x, sigmas, *, noise):
    for s, t in pairwise(sigmas):
        x = euler(x, (yield x, s), s, t)
        more = noise(s, t) + noise(s, t, draw=3) + noise(s, t, stream="side")
        x = x + t / 10 * more
    return x


def asking_for_gradients(x, sigmas):
    d = yield Ask(x, sigmas[0], graph=True)
    return d


def not_as_declared(x, sigmas):
    s = sigmas[0]
    while True:
        s = s * (0.5 if (yield x, s).abs().max() > 0 else 0.25)
        if s < 0.1:
            return x


def stopping(x, sigmas):
    for s in sigmas[:-1]:
        if (yield x, s).abs().max() > 0:
            break
    return x


def starting_elsewhere(x, sigmas):
    for s in sigmas[:-1]:
        x = yield 0.5 * x, s
    return x


def thirds(steps, final, options):
    return 3 * steps - 2 * (final == "zero")


KINDS = [
    (three_stages, {"order": 1, "nfe": thirds}),
    (restarting, {"order": 1, "nfe": lambda n, f, o: n + 2, "noise": "white", "ode": None}),
    (corrected_at_the_end, {"order": 1, "nfe": lambda n, f, o: n + (f != "zero")}),
    (ending_early, {"order": 1, "nfe": lambda n, f, o: min(n, 3)}),
    (asking_lists, {"order": 1, "nfe": lambda n, f, o: 2 * n}),
    (drawing_streams, {"order": 1, "noise": "brownian", "ode": None}),
]
NAMES = [*(f"kind_{function.__name__}" for function, _ in KINDS), "adaptive", "adaptive_by_sample"]
REFUSED = [
    (asking_for_gradients, {"order": 1, "nfe": lambda n, f, o: 1}),
    (not_as_declared, {"order": 1, "linear": False}),
    (stopping, {"order": 1, "linear": False}),
    (starting_elsewhere, {"order": 1}),
]


def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 1.0):
    walk = start(x, sigmas)
    while walk.asks:
        answers = yield list(walk.asks)
        walk.answer(*(d.clamp(-most, most) for d in answers))
    return walk.result


def painted(start, x, sigmas, *, noise):
    """Replaces half of each answer, with one noise of the edit's own: an adaptive sampler would not
    end on answers that change at random."""
    walk = start(x, sigmas)
    while walk.ask:
        d = yield walk.ask
        n = noise(1.0, 0.0)
        n = n if walk.ask.rows is None else n[list(walk.ask.rows)]
        walk.answer((1 - KEEP) * d + KEEP * (0.5 + 0.1 * n))
    return walk.result


def asked_twice(start, x, sigmas, *, noise):
    walk = start(x, sigmas)
    while walk.ask:
        first = yield walk.ask
        again = yield walk.ask.x + 0.1 * noise(walk.ask.sigma, 1.0), walk.ask.sigma
        walk.answer((first + again) / 2)
    return walk.result


def changing_the_start(start, x, sigmas, *, noise):
    return clamped(start, 0.9 * x, sigmas, noise=noise)


def doubled(levels, sigmas, options):
    return [level for level in levels(sigmas) for _ in range(2)]


@contextmanager
def registered():
    """Samplers and edits are known under their names in this block."""
    samplers = {f"kind_{function.__name__}": (function, d) for function, d in KINDS + REFUSED}
    edits = [(clamped, {}), (painted, {}), (asked_twice, {"levels": doubled})]
    edits = {function.__name__: (function, d) for function, d in [*edits, (changing_the_start, {})]}
    for name, (function, declared) in samplers.items():
        sampler(name, paper="of this test", **declared)(function)
    for name, (function, declared) in edits.items():
        edit(name, paper="of this test", **declared)(function)
    with adaptive_samplers.registered():
        yield
    for name in samplers:
        del REGISTRY[name]
    for name in edits:
        del EDITS[name]


def network(z, t):
    t = t.reshape(-1, *[1] * (z.ndim - 1)).float().double() if t.ndim else t.float().double()
    return 0.6 * z + 0.3 * torch.sin(3 * z + t / 200)


def make(kind="eps", name="euler", **chosen):
    scheduler = KDiffScheduler.from_config(
        CONFIGS[kind], sampler=name, seeds=SEEDS, schedule="karras", sigma_max=30, **chosen
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


def start(scheduler):
    sigma = scheduler.plan.sigmas[0]
    noise = kdiff.Noise(SEEDS, SHAPE, torch.float64).initial()
    return noise * scheduler.precond(sigma).c_in * sigma


def loop(scheduler, z, timesteps=None):
    """The result of a pipeline's loop, and how often it called the network."""
    calls = 0
    for t in scheduler.timesteps if timesteps is None else timesteps:
        calls += 1
        z = scheduler.step(network(z, t), t, z, return_dict=False)[0]
    return z, calls


def expected(scheduler, name, **planned):
    """The result of kdiff.sample, and the number of its evaluations."""
    states = []
    model = kdiff.Denoiser(network, scheduler.precond, shape=SHAPE)
    grid = {"sigmas": scheduler.plan.sigmas}
    wide = {"seeds": SEEDS, "dtype": torch.float64, "callback": states.append}
    result = kdiff.sample(model, name, **grid, **wide, **planned)
    return result, len(states) - 1


def close(ours, other):
    assert ours.dtype == other.dtype == torch.float64
    assert (ours - other).abs().max() < 1e-9 * other.abs().max()
