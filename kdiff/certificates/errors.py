"""Errors at few evaluations on the standard problems, and sizes at very few steps."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from kdiff.certificates.finding import Finding
from kdiff.certificates.problems import STANDARD, Mixture
from kdiff.certificates.runs import Options, grid, rms, solve
from kdiff.samplers import Sampler
from kdiff.schedules import FINALS

BUDGETS = (5, 10, 20, 50)
FEW = (1, 2, 3)
RUNS, NOISY_RUNS = 256, 2048


@cache
def quantiles(name: str, n: int, sigma: float) -> Tensor:
    return STANDARD[name].quantiles(n, sigma)


def distance(found: Tensor, data: Tensor) -> float:
    """Wasserstein's, W2, between samples and the data, both in one dimension."""
    return rms(found.sort().values - data)


def measure(sampler: Sampler, options: Options) -> Finding | None:
    """W2 to the data over the data's standard deviation, for as many steps as 5, 10, 20 and 50
    evaluations pay for, from all quantiles of the marginal at sigma = 80, on the default grid. The
    flow keeps quantiles: for a sampler of the ODE this is the error of its solution, rms."""
    if sampler.limit is not None:
        return None
    values: dict[str, list[list[float]]] = {}
    for name, model in STANDARD.items():
        values[name] = []
        for budget in BUDGETS:
            try:
                steps = sampler.steps(budget, "zero", options)
            except ValueError:  # not even one step
                continue
            values[name].append([*error(sampler, options, name, model, steps)])
    shown = [f"{error:.2g}" for _, error in values["wide"]]
    missing = ["-"] * (len(BUDGETS) - len(shown))
    return Finding(" ".join(missing + shown), values)


def error(
    sampler: Sampler, options: Options, name: str, model: Mixture, steps: int
) -> tuple[int, float]:
    """The evaluations, and the distance."""
    n = NOISY_RUNS if sampler.stochastic(options) else RUNS
    levels = grid(steps, model.sigma_min, model.sigma_max, "zero")
    run = solve(sampler, options, levels, model, quantiles(name, n, model.sigma_max))
    return run.nfe, distance(run.x, quantiles(name, n, 0.0)) / model.std


def stability(sampler: Sampler, options: Options) -> Finding:
    """The largest number that 1, 2 and 3 steps give, with both endings, over the largest of the
    data. An evaluation at sigma_min makes a slope of at most the data over sigma_min of what is
    still unresolved there, and a step from sigma_max multiplies it by sigma_max: a sampler that
    takes such steps is off by up to their ratio, and one that is off by more is unstable."""
    worst, most = 0.0, max(m.sigma_max / m.sigma_min for m in STANDARD.values())
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
