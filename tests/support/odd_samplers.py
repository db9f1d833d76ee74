"""Samplers that use what the contract admits and no registered one needs: declared as authors do,
and taken out of the registry at once."""

import math
from itertools import pairwise
from typing import Annotated

import torch

import kdiff
from exact_models import Pointwise
from kdiff.samplers import REGISTRY, Ask, Option, Walk, sampler
from kdiff.samplers.steps import eps, euler_step


def local(**declared):
    """The decorated coroutine as a `Sampler` that is not registered."""

    def make(function):
        sampler(function.__name__, **{"order": 1, "paper": "none", **declared})(function)
        return REGISTRY.pop(function.__name__)

    return make


def plan_of(which, sigmas, **options) -> kdiff.Plan:
    return kdiff.Plan(which, which.with_defaults(options), list(sigmas), "given")


def _three(steps, final, options):
    return 3 * (steps - 1) + (1 if final == "zero" else 3)


@local(order=3, nfe=_three)
def three_stages(x, sigmas):
    """Kutta's third-order rule: slopes at the start, the middle, and the end."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t == 0:
            return d
        h, m = t - s, (s + t) / 2
        e1 = eps(x, d, s)
        x2 = x + h / 2 * e1
        e2 = eps(x2, (yield x2, m), m)
        x3 = x + h * (2 * e2 - e1)
        e3 = eps(x3, (yield x3, t), t)
        x = x + h / 6 * (e1 + 4 * e2 + e3)
    return x


@local(nfe=lambda steps, final, options: min(steps, options["most"]))
def early_end(x, sigmas, *, most: Annotated[int, Option("of evaluations", 1)] = 2):
    for i, (s, t) in enumerate(pairwise(sigmas), 1):
        d = yield x, s
        if i == most:
            return d
        x = euler_step(x, d, s, t)
    return x


def _again(steps, final, options):
    inner = steps - 1 if final == "zero" else steps
    return steps + inner * options["times"]


@local(nfe=_again, noise="white", ode={"times": 0})
def back_and_forth(x, sigmas, *, noise, times: Annotated[int, Option("how often", 0)] = 2):
    """After each step back up with fresh noise, and down again (Xu et al. 2023)."""
    for i, (s, t) in enumerate(pairwise(sigmas)):
        for k in range(1 + (times if t else 0)):
            if k:
                x = x + math.sqrt(s * s - t * t) * noise(t, s, k)
            d = yield Ask(x, s, step=i)
            x = euler_step(x, d, s, t)
    return x


@local(nfe=lambda steps, final, options: steps + (final == "sigma_min"))
def corrected(x, sigmas):
    """Euler, and the denoised of its end if there still is noise."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = euler_step(x, d, s, t)
    return (yield x, sigmas[-1]) if sigmas[-1] else x


@local(nfe=lambda steps, final, options: 2 * steps)
def paired(x, sigmas):
    """Asks at both of two noise levels at once, after it has asked for nothing."""
    nothing = yield []
    assert nothing == []
    for s, t in pairwise(sigmas):
        d, half = yield [(x, s), Ask(0.5 * x, s / 2)]
        x = euler_step(x, 0.5 * d + 0.5 * half, s, t)
    return x


@local(noise="brownian", ode=None)
def two_noises(x, sigmas, *, noise):
    """Its own kind of noise, and an auxiliary one on the same interval; there is no ODE."""
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = euler_step(x, d, s, t / 2)
        x = x + t / 2 * (noise(s, t) + noise(s, t, stream="momentum"))
    return x


@local(linear=False)
def clipping(x, sigmas):
    """Not linear in what it is told; and takes the samples of a batch one after another."""
    rows = []
    for i in range(len(x)):
        one = x[i : i + 1]
        for s, t in pairwise(sigmas):
            d = yield Ask(one, s, rows=[i])
            one = euler_step(one, d.clamp(-1, 1), s, t)
        rows.append(one)
    return torch.cat(rows)


@local(linear=False)
def descending(x, sigmas, *, rate: Annotated[float, Option("of the descent", 0)] = 0.1):
    """Euler, on D - rate times the gradient of |D|^2 / 2 with respect to x."""
    for s, t in pairwise(sigmas):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            d = yield Ask(x, s, graph=True)
            (slope,) = torch.autograd.grad(d.square().sum() / 2, x)
        x = euler_step(x.detach(), d.detach() - rate * slope, s, t)
    return x


@local(order=2, nfe=None, limit=200, linear=False)
def adaptive(
    x,
    sigmas,
    *,
    tolerance: Annotated[float, Option("error of a step")] = 0.01,
    limit: Annotated[int, Option("the most evaluations", 1)] = 200,
):
    """Heun with Euler's error estimate. Each sample chooses its own steps; the asks that wait are
    one list."""
    parts = [Walk(_of_one(x[i : i + 1], i, sigmas, tolerance)) for i in range(len(x))]
    while any(part.asks for part in parts):
        waiting = [part for part in parts if part.asks]
        answers = yield [part.ask for part in waiting]
        for part, answer in zip(waiting, answers, strict=True):
            part.answer(answer)
    return torch.cat([part.result for part in parts])


def _of_one(x, row, sigmas, tolerance):
    s, end = sigmas[0], sigmas[-1] or sigmas[-2]
    ratio = 0.5
    while s > end:
        t = max(s * ratio, end)
        d = yield Ask(x, s, [row])
        x_euler = euler_step(x, d, s, t)
        d_t = yield Ask(x_euler, t, [row])
        x_heun = x + (t - s) / 2 * (eps(x, d, s) + eps(x_euler, d_t, t))
        error = float((x_heun - x_euler).abs().max()) / tolerance
        if error <= 1:
            x, s = x_heun, t
        ratio = ratio ** min(2.0, max(0.3, 0.8 / math.sqrt(error + 1e-12)))
    return x if sigmas[-1] else (yield Ask(x, s, [row]))


def states_of(plan, seeds=(5, 2, 9), model=None, **arguments):
    ((_, states),) = kdiff.run(model or Pointwise(), plan, list(seeds), **arguments)
    return list(states)
