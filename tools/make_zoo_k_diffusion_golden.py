"""Writes tests/golden/zoo_k_diffusion.json: what k-diffusion's dpm_fast and dpm_adaptive compute on
the problem of tools/golden_problem.py. In the environment of tools/make_k_diffusion_golden.py.

Made with k-diffusion 0.1.1.post1 and torch 2.14. Both run from SIGMA_MAX to SIGMA_MIN; `grid` is
the number of evaluations that dpm_fast is given. Noise: `pseudo_noise(s, t)` once for each step
that is taken; dpm_adaptive asks for it in accepted steps only. dpm_adaptive's counts (steps, nfe,
n_accept, n_reject) are kept as "info".
"""

from __future__ import annotations

import torch

import golden_problem as problem
from make_k_diffusion_golden import load_sampling

ENDS = (problem.SIGMA_MIN, problem.SIGMA_MAX)
STOCHASTIC = [{}, {"eta": 0.5}, {"eta": 1.0, "s_noise": 0.9}]
ADAPTIVE = [
    *({"order": order, "rtol": rtol, "atol": atol} for order in (2, 3) for rtol, atol in (
        (0.05, 0.0078),
        (1e-2, 1e-3),
        (1e-3, 1e-4),
        (1e-4, 1e-5),
        (1e-5, 1e-6),
    )),
    {"eta": 0.5},
    {"eta": 1.0, "s_noise": 0.9},
    {"pcoeff": 0.4, "icoeff": 0.7, "dcoeff": 0.05},
    {"h_init": 1.0, "accept_safety": 0.9},
]  # fmt: skip


def main() -> None:
    torch.set_default_dtype(torch.float64)
    sampling = load_sampling()
    samples = []
    for n in (1, 2, 3, 4, 5, 6, 10, 16):
        for options in STOCHASTIC:
            result = sampling.sample_dpm_fast(
                problem.denoise,
                problem.start(),
                *ENDS,
                n,
                disable=True,
                noise_sampler=problem.pseudo_noise,
                **options,
            )
            samples.append({"name": "dpm_fast", "options": options, "grid": n, "result": result})
    for options in ADAPTIVE:
        result, info = sampling.sample_dpm_adaptive(
            problem.denoise,
            problem.start(),
            *ENDS,
            disable=True,
            noise_sampler=problem.pseudo_noise,
            return_info=True,
            **options,
        )
        entry = {"name": "dpm_adaptive", "options": options, "grid": None, "result": result}
        samples.append({**entry, "info": info})
    samples = [{**sample, "result": problem.rounded(sample["result"])} for sample in samples]
    problem.write("k_diffusion", "k-diffusion 0.1.1.post1", samples, [])


if __name__ == "__main__":
    main()
