"""Writes tests/golden/zoo_diff_sampler.json: what diff-sampler's solvers and schedules compute on
the problem of tools/golden_problem.py. In a throw-away environment:

    git clone https://github.com/zju-pi/diff-sampler
    pip install torch numpy
    python tools/make_zoo_diff_sampler_golden.py diff-sampler/diff-solvers-main

Made with commit 68d5ce4 (2025-11-24) and torch 2.14.

Its grids end at sigma_min; `denoise_to_zero` adds an evaluation there, which is what a grid with a
final zero does. It always thresholds a predicted x0; here only where the options say so. Its net
gets images, of shape [2, 3, 1, 1].
"""

from __future__ import annotations

import sys
from unittest import mock

import torch

import golden_problem as problem

torch.set_default_dtype(torch.float64)

ORDERS = [{"max_order": n} for n in (1, 2, 3, 4)]
CASES: dict[str, list[dict]] = {
    "euler": [{}, {"afs": True}],
    "heun": [{}, {"afs": True}],
    "dpm_2": [{}, {"r": 0.3}],
    "ipndm": [*ORDERS[1:], {"max_order": 4, "afs": True}],
    "ipndm_v": ORDERS[1:],
    "deis": [{"deis_mode": "tab", "max_order": n} for n in (2, 3, 4)],  # rhoab crashes
    "dpm_pp": [
        *({"predict_x0": x0, **o} for x0 in (True, False) for o in ORDERS[:3]),
        {"max_order": 3, "lower_order_final": False},
        {"max_order": 3, "thresholding": True},
    ],
    "unipc": [
        {"predict_x0": x0, "variant": variant, **order}
        for x0 in (True, False)
        for variant in ("bh1", "bh2")
        for order in ORDERS[:3]
    ],
}
CASES["unipc"] += [
    {"max_order": 3, "lower_order_final": False},
    {"max_order": 3, "thresholding": True},
]


def net(x: torch.Tensor, t: torch.Tensor, class_labels=None) -> torch.Tensor:
    return problem.denoise(x, t)


def run(solvers, name: str, options: dict, grid: str) -> torch.Tensor:
    options = dict(options)
    to_zero = grid.endswith("zero")
    sigmas = problem.GRIDS[grid][:-1] if to_zero else problem.GRIDS[grid]
    if name == "deis":
        options["coeff_list"] = solvers.get_deis_coeff_list(
            sigmas, options["max_order"], deis_mode=options["deis_mode"]
        )
    if not options.pop("thresholding", False):
        hold = mock.patch.multiple(
            sys.modules["solver_utils"], dynamic_thresholding_fn=lambda x0: x0
        )
        also = mock.patch.object(solvers, "dynamic_thresholding_fn", lambda x0: x0)
    else:
        hold = also = mock.MagicMock()
    with hold, also:
        return getattr(solvers, f"{name}_sampler")(
            net,
            torch.tensor(problem.START).view(2, 3, 1, 1),
            num_steps=len(sigmas),
            t_steps=sigmas,
            denoise_to_zero=to_zero,
            **options,
        )


def schedules(utils) -> list[dict]:
    ends = {"sigma_min": problem.SIGMA_MIN, "sigma_max": problem.SIGMA_MAX}
    return [
        {"name": kind, "steps": n - 1, "settings": {**ends, **settings}, "sigmas": sigmas}
        for kind, settings in (
            ("polynomial", {"schedule_rho": 7}),
            ("logsnr", {}),
            ("time_uniform", {"schedule_rho": 1}),
            ("time_uniform", {"schedule_rho": 2}),
        )
        for n in (5, 11)
        for sigmas in [
            problem.rounded(utils.get_schedule(n, schedule_type=kind, **ends, **settings))
        ]
    ]


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import solver_utils
    import solvers

    samples = [
        {
            "name": name,
            "options": options,
            "grid": grid,
            "result": problem.rounded(result.view(2, 3)),
        }
        for name, variants in CASES.items()
        for options in variants
        for grid in problem.GRIDS
        for result in [run(solvers, name, options, grid)]
    ]
    problem.write("diff_sampler", "diff-sampler 68d5ce4", samples, schedules(solver_utils))


if __name__ == "__main__":
    main()
