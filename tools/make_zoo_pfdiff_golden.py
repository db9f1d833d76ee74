"""Writes tests/golden/zoo_pfdiff.json: what PFDiff (Wang et al. 2024) computes on the problem of
tools/golden_problem.py. In a throw-away environment:

    git clone https://github.com/onefly123/PFDiff
    pip install torch numpy
    python tools/make_zoo_pfdiff_golden.py PFDiff/uncondition/ddim-main/functions

Made with commit e63fd30 (2025-10-01) and torch 2.14.

PFDiff-k_h: from the third level on, it looks h levels ahead with the last slope, asks there, and
goes k + 1 levels from where it was with that slope. The grids are those with a final zero.
"""

from __future__ import annotations

import importlib
import sys
from unittest import mock

import torch

import golden_problem as problem

KINDS = {"1": (1, 1), "2_1": (2, 1), "2_2": (2, 2), "3_1": (3, 1), "3_2": (3, 2), "3_3": (3, 3)}


def run(solver, sigmas: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Its x is variance preserving, and its time is an index; -1 is the last level, zero."""
    upwards = sigmas[:-1].flip(0)
    alphas = {i: 1 / (1 + sigma**2) for i, sigma in enumerate(upwards)}
    alphas[-1] = torch.tensor(1.0)
    calls = []

    def eps(x, t):
        sigma = upwards[int(t[0])]
        calls.append(sigma)
        x = x * (1 + sigma**2).sqrt()
        return (x - problem.denoise(x, sigma)) / sigma

    start = problem.start(sigmas[0]) / (1 + sigmas[0] ** 2).sqrt()
    stay = torch.Tensor.to

    def to(x, place, *rest):  # it names its device
        return x if place == "cuda" else stay(x, place, *rest)

    with mock.patch.object(torch.Tensor, "to", to):
        steps, _ = solver.generalized_steps(start, range(len(upwards)), eps, alphas, None)
    return steps[-1], len(calls)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, sys.argv[1])
    samples = []
    for kind, (k, h) in KINDS.items():
        solver = importlib.import_module(f"denoising_PFDiff_{kind}")
        for grid in ("4, zero", "10, zero"):
            result, evaluations = run(solver, problem.GRIDS[grid])
            entry = {"name": "pfdiff", "options": {"k": k, "h": h}, "grid": grid}
            samples.append({**entry, "nfe": evaluations, "result": problem.rounded(result)})
    problem.write("pfdiff", "PFDiff e63fd30", samples, [])


if __name__ == "__main__":
    main()
