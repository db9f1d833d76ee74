"""What a result must not depend on: how the network is parametrised, which batch a seed is in, and
the order of seeds. And where a run can be taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kdiff.certificates.finding import Finding
from kdiff.certificates.problems import GAUSSIAN, STANDARD, Mixture
from kdiff.certificates.runs import Options, grid, solve
from kdiff.denoiser import Denoiser
from kdiff.plans import Plan
from kdiff.preconditioners import precond
from kdiff.samplers import Sampler
from kdiff.sampling import run

PREDICTIONS = ("eps", "v", "x0", "flow", "edm")
TOLERANCE = 1e-9  # rounding in float64, as preconditioners multiply it
SEEDS = (5, 2, 9, 7)
STEPS, SIGMA_MIN, SIGMA_MAX = 6, 0.02, 20.0
SPLIT = 3  # after so many steps
HALVINGS = 100


def measure(sampler: Sampler, options: Options) -> Finding:
    """Largest differences, relative to the largest number."""
    found = {
        "prediction": max(predictions(sampler, options).values()),
        "batch": batch(sampler, options),
        "seed": seed(sampler, options),
    }
    words = {
        "prediction": "on how the network is parametrised",
        "batch": "on the batch that a seed is in",
        "seed": "on more than the seed: one gives two results, or two give one",
    }
    failures = [
        f"its result depends {words[key]}, by {value:.2g}"
        for key, value in found.items()
        if not value <= TOLERANCE
    ]
    return Finding(f"{max(found.values()):.0e}", found, "; ".join(failures))


def predictions(sampler: Sampler, options: Options) -> dict[str, float]:
    """One exact denoiser, also for students, as eps, v, x0, flow and edm networks, through their
    preconditioners."""
    model, levels = STANDARD["wide"], grid(STEPS, SIGMA_MIN, SIGMA_MAX)
    start = model.quantiles(16, SIGMA_MAX)
    direct = solve(sampler, options, levels, model.__call__, start).x
    return {
        name: _difference(solve(sampler, options, levels, as_network(model, name), start).x, direct)
        for name in PREDICTIONS
    }


@cache
def as_network(model: Mixture, prediction: str) -> Denoiser:
    """`model` through a network F = (D - c_skip x) / c_out that predicts this."""
    made = precond(prediction)

    @cache
    def sigma_of(c_noise: float) -> float:
        """The noise level at which the preconditioner's clock shows `c_noise`, by bisection."""
        low, high = 1e-3, 1e3
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if made.clock(middle) < c_noise else (low, middle)
        return (low * high) ** 0.5

    def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
        sigma = sigma_of(float(c_noise[0]))
        c = made(sigma)
        x = scaled / c.c_in
        return (model(x, sigma) - c.c_skip * x) / c.c_out

    return Denoiser(network, made, shape=model.shape)  # type: ignore[arg-type]


def batch(sampler: Sampler, options: Options) -> float:
    """Four seeds at once, one at a time, and in another order."""
    together = sample(sampler, options, SEEDS, 4)
    alone = sample(sampler, options, SEEDS, 1)
    turned = sample(sampler, options, SEEDS[::-1], 4).flip(0)
    return max(_difference(alone, together), _difference(turned, together))


def seed(sampler: Sampler, options: Options) -> float:
    """Twice the same; infinite if two seeds give one result."""
    one, again = (sample(sampler, options, SEEDS, 4) for _ in range(2))
    return float("inf") if torch.equal(one[0], one[1]) else _difference(one, again)


def sample(sampler: Sampler, options: Options, seeds: Sequence[int], size: int) -> Tensor:
    plan = Plan(sampler, options, grid(STEPS, SIGMA_MIN, SIGMA_MAX), "karras")
    parts: list[Any] = []
    for _, states in run(GAUSSIAN, plan, seeds, batch=size, shape=(3,), dtype=torch.float64):
        *_, last = states
        parts.append(last.x)
    return torch.cat(parts)


def split(sampler: Sampler, options: Options) -> Finding:
    """A run, and the same in two parts: by how much they differ. One-step methods do not. Others
    begin anew, without the history of their steps, which is no failure."""
    model, levels = STANDARD["wide"], grid(STEPS, SIGMA_MIN, SIGMA_MAX)
    start = model.quantiles(16, SIGMA_MAX)
    whole = solve(sampler, options, levels, model, start).x
    half = solve(sampler, options, levels[: SPLIT + 1], model, start).x
    parts = solve(sampler, options, levels[SPLIT:], model, half).x
    found = _difference(parts, whole)
    return Finding("free" if found <= TOLERANCE else f"{found:.1g}", {"difference": found})


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())
