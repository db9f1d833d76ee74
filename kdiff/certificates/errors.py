"""Errors at few evaluations on the standard problems, and sizes at very few steps."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from torch import Tensor

from kdiff.certificates.finding import Finding
from kdiff.certificates.problems import STANDARD
from kdiff.certificates.runs import Options, grid, rms, solve
from kdiff.certificates.tolerances import names, tightened
from kdiff.samplers import Sampler
from kdiff.schedules import FINALS

BUDGETS = (5, 10, 20, 50)
FEW = (1, 2, 3)
TOLERANCES = (1e-1, 1e-2, 1e-3)
ADAPTIVE_STEPS = 20
RUNS, NOISY_RUNS = 256, 2048


@cache
def quantiles(name: str, n: int, sigma: float) -> Tensor:
    return STANDARD[name].quantiles(n, sigma)


def distance(found: Tensor, data: Tensor) -> float:
    """Wasserstein's, W2, between samples and the data, both in one dimension."""
    return rms(found.sort().values - data)


def measure(sampler: Sampler, options: Options) -> Finding:
    """W2 to the data over the data's standard deviation, for as many steps as 5, 10, 20 and 50
    evaluations pay for, from all quantiles of the marginal at sigma = 80, on the default grid. The
    flow keeps quantiles: for a sampler of the ODE this is the error of its solution, rms. Adaptive
    samplers take what evaluations they take, at each of three tolerances, or at their own."""
    found = {name: errors(sampler, options, name) for name in STANDARD}
    shown = [f"{error:.2g}" for _, error in found["wide"]]
    if sampler.limit is not None:
        shown = [f"{error} at {nfe}" for error, (nfe, _) in zip(shown, found["wide"], strict=True)]
    return Finding(" ".join(["-"] * (len(BUDGETS) - len(shown)) + shown), found)


def errors(sampler: Sampler, options: Options, name: str) -> list[tuple[int, float]]:
    """Evaluations, and the distance that they lead to."""
    if sampler.limit is not None:
        chosen = TOLERANCES if names(sampler) else TOLERANCES[:1]
        given = [tightened(sampler, options, tolerance) for tolerance in chosen]
        return [error(sampler, one, name, ADAPTIVE_STEPS) for one in given]
    steps = []
    for budget in BUDGETS:
        with suppress(ValueError):  # which does not pay for one step
            steps.append(sampler.steps(budget, "zero", options))
    return [error(sampler, options, name, n) for n in steps]


def error(sampler: Sampler, options: Options, name: str, steps: int) -> tuple[int, float]:
    model = STANDARD[name]
    n = NOISY_RUNS if sampler.stochastic(options) else RUNS
    levels = grid(steps, model.sigma_min, model.sigma_max, "zero")
    run = solve(sampler, options, levels, model, quantiles(name, n, model.sigma_max))
    return run.nfe, distance(run.x, quantiles(name, n, 0.0)) / model.std


def stability(sampler: Sampler, options: Options) -> Finding:
    """The largest number that 1, 2 and 3 steps give, with both endings, over the largest of the
    data. An evaluation at sigma_min makes a slope of at most the data over sigma_min of what is
    still unresolved there, and a step from sigma_max multiplies it by sigma_max: a sampler that
    takes such steps is off by about their ratio, and one that is off by three times as much is
    unstable."""
    worst, most = 0.0, 3 * max(m.sigma_max / m.sigma_min for m in STANDARD.values())
    for name, model in STANDARD.items():
        largest = float(quantiles(name, RUNS, 0.0).abs().max())
        start = quantiles(name, RUNS, model.sigma_max)
        for steps in FEW:
            for final in FINALS:
                levels = grid(steps, model.sigma_min, model.sigma_max, final)
                x = solve(sampler, options, levels, model, start).x
                size = float(x.abs().max()) if bool(x.isfinite().all()) else float("inf")
                worst = max(worst, size / largest)
    unstable = f"at few steps its results are {worst:.3g} times as large as the data"
    return Finding(f"{worst:.2g}", {"growth": worst}, "" if worst <= most else unstable)
