"""Writes tests/golden/zoo_scire.json: what SciRE-Solver (Li et al. 2023) computes on the problem of
tools/golden_problem.py. In a throw-away environment:

    git clone https://github.com/ShiguiLi/SciRE-Solver
    pip install torch numpy
    python tools/make_zoo_scire_golden.py SciRE-Solver

Made with commit 5ebe126 (2025-07-02) and torch 2.14.

"scire_v1" works with the slope eps against sigma, "scire_v2" with x0 against 1 / sigma. The grids
end at sigma_min. Singlestep methods have intermediate levels between those of the grid: at a third
and two thirds (order 3), or at half (order 2).
"""

from __future__ import annotations

import sys

import torch

import golden_problem as problem

CASES = [
    {"algorithm_type": kind, "method": method, "order": order, "lower_order_final": lower}
    for kind in ("scire_v1", "scire_v2")
    for method in ("multistep", "singlestep_fixed")
    for order in (2, 3)
    for lower in ((True, False) if method == "multistep" else (True,))
]


def schedule(scire, sigmas: torch.Tensor):
    """Time is sigma, so that the noise-to-signal ratio is the time."""

    class Schedule:
        schedule = "linear"
        T = float(sigmas[0])
        total_N = 1 / float(sigmas[-1])  # noqa: N815
        series_phi = scire.NoiseScheduleVP.series_phi

        def marginal_alpha(self, t):
            return 1 / (1 + t**2).sqrt()

        def marginal_std(self, t):
            return t * self.marginal_alpha(t)

        def marginal_NSR(self, t):  # noqa: N802
            return t

        def inverse_NSR(self, ratio):  # noqa: N802
            return ratio

    return Schedule()


def run(scire, options: dict, sigmas: torch.Tensor) -> torch.Tensor:
    options = dict(options)

    def eps(x, t):
        x = x * (1 + t[:, None] ** 2).sqrt()
        return (x - problem.denoise(x, t)) / t[:, None]

    times = schedule(scire, sigmas)
    solver = scire.SciRE_Solver(eps, times, algorithm_type=options.pop("algorithm_type"))
    solver.get_time_steps = lambda **kwargs: sigmas
    per_step = options["order"] if options["method"] == "singlestep_fixed" else 1
    x = problem.start(sigmas[0]) * times.marginal_alpha(sigmas[0])
    x = solver.sample(x, steps=(len(sigmas) - 1) * per_step, **options)
    return x / times.marginal_alpha(sigmas[-1])


def main() -> None:
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, sys.argv[1])
    import scire_solver as scire

    samples = [
        {"name": "scire", "options": options, "grid": grid, "result": problem.rounded(result)}
        for options in CASES
        for grid in ("4, sigma_min", "10, sigma_min")
        for result in [run(scire, options, problem.GRIDS[grid])]
    ]
    problem.write("scire", "SciRE-Solver 5ebe126", samples, [])


if __name__ == "__main__":
    main()
