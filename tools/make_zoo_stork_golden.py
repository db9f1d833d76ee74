"""Writes tests/golden/zoo_stork.json: what STORK-2 (Tan et al. 2025) computes on the problem of
tools/golden_problem.py with flow matching. In a throw-away environment:

    git clone https://github.com/ZT220501/STORK
    pip install torch numpy scipy diffusers==0.42
    python tools/make_zoo_stork_golden.py STORK

Made with commit fd991ca (2025-07-22) and torch 2.14.

The grids are those with a final zero, as sigma / (1 + sigma); "asked" are the levels, as sigma, at
which it asks: it halves the first step. STORK-4 needs files of coefficients and is left out.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import golden_problem as problem

CASES = [{"derivative_order": d, "s": s} for d in (2, 3) for s in (10, 50)]


def run(scheduler, sigmas: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    flow = sigmas / (1 + sigmas)
    scheduler.dtype, scheduler.np_dtype = torch.float64, np.float64
    scheduler.set_timesteps(len(sigmas) - 1, "cpu", sigmas=flow[:-1].tolist())
    x, asked = problem.start(sigmas[0]) / (1 + sigmas[0]), []
    for time in scheduler.timesteps:
        t = time / scheduler.config.num_train_timesteps
        sigma = t / (1 - t)
        asked.append(float(sigma))
        velocity = (x - problem.denoise(x / (1 - t), sigma)) / t
        x = scheduler.step(velocity, time, x, return_dict=True).prev_sample
    return x, asked


def main() -> None:
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, sys.argv[1])
    from STORKScheduler import STORKScheduler

    samples = []
    for options in CASES:
        for grid in ("4, zero", "10, zero"):
            scheduler = STORKScheduler(prediction_type="flow_prediction", solver_order=2, **options)
            result, asked = run(scheduler, problem.GRIDS[grid])
            entry = {"name": "stork2", "options": options, "grid": grid, "asked": asked}
            samples.append({**entry, "result": problem.rounded(result)})
    problem.write("stork", "STORK fd991ca", samples, [])


if __name__ == "__main__":
    main()
