"""Writes tests/golden/zoo_score_sde.json: what the samplers of Song et al. (2021) compute on the
problem of tools/golden_problem.py with the variance-exploding SDE. In a throw-away environment:

    git clone https://github.com/yang-song/score_sde_pytorch
    pip install torch scipy numpy
    python tools/make_zoo_score_sde_golden.py score_sde_pytorch

Made with commit cb1f359 (2022-11-10), torch 2.14 and scipy 1.17.

Its grids have N levels, uniform in log sigma from SIGMA_MAX to SIGMA_MIN, and a final zero, where
it returns the mean. Noise: correction k at level s draws `pseudo_noise(s, s, k)`, the predictor in
its step from s to t `pseudo_noise(s, t)` (the last step's noise is not used). Langevin's step
length is a mean over the batch: options with "batch": 1 are runs of each sample alone.
The probability-flow ODE is solved in float64 here (its own code casts to float32).
"""

from __future__ import annotations

import itertools
import sys
from unittest import mock

import torch

import golden_problem as problem

torch.set_default_dtype(torch.float64)
EPS = 1e-9  # its last time; any small number, by which each level is off by so much


def exponential(n: int) -> torch.Tensor:
    ends = torch.tensor([problem.SIGMA_MAX, problem.SIGMA_MIN]).log()
    return torch.cat([torch.linspace(*ends.tolist(), n).exp(), torch.zeros(1)])


class Score(torch.nn.Module):
    """Its networks get sigma and return the score."""

    def forward(self, x, sigma):
        return (problem.denoise(x, sigma) - x) / sigma.view(-1, 1, 1, 1) ** 2


def noises(sigmas: torch.Tensor, corrections: int, rows: slice):
    for s, t in itertools.pairwise(sigmas):
        for k in range(corrections):
            yield problem.pseudo_noise(s, s, k)[rows].view(-1, 3, 1, 1)
        yield problem.pseudo_noise(s, t.clamp(min=1e-3))[rows].view(-1, 3, 1, 1)


def predictor_corrector(sampling, sde_lib, options: dict, n: int, rows: slice) -> torch.Tensor:
    sde = sde_lib.VESDE(problem.SIGMA_MIN, problem.SIGMA_MAX, n)
    start = problem.start()[rows].view(-1, 3, 1, 1)
    sde.prior_sampling = lambda shape: start
    corrector = options.get("corrector", "none")
    steps = options.get("n_steps", 1)
    draws = noises(exponential(n), 0 if corrector == "none" else steps, rows)
    run = sampling.get_pc_sampler(
        sde,
        tuple(start.shape),
        predictor=sampling.get_predictor(options["predictor"]),
        corrector=sampling.get_corrector(corrector),
        inverse_scaler=lambda x: x,
        snr=options.get("snr", 0.16),
        n_steps=steps,
        continuous=True,
        eps=EPS,
        device="cpu",
    )
    with mock.patch.object(torch, "randn_like", lambda x: next(draws)):
        return run(Score())[0].view(-1, 3)


def ode(sampling, sde_lib, options: dict) -> tuple[torch.Tensor, int]:
    sde = sde_lib.VESDE(problem.SIGMA_MIN, problem.SIGMA_MAX, 1000)
    run = sampling.get_ode_sampler(
        sde, (2, 3, 1, 1), lambda x: x, eps=1e-300, device="cpu", **options
    )
    with mock.patch.object(torch, "float32", torch.float64):
        result, evaluations = run(Score(), problem.start().view(2, 3, 1, 1))
    return result.view(2, 3), evaluations


CASES = [
    {"predictor": "reverse_diffusion"},
    {"predictor": "ancestral_sampling"},
    {"predictor": "euler_maruyama"},
    *(
        {"predictor": predictor, "corrector": "langevin", "snr": snr, "n_steps": n, "batch": batch}
        for predictor in ("reverse_diffusion", "none")
        for snr, n in ((0.16, 1), (0.075, 2))
        for batch in (1, 2)
    ),
    {"predictor": "none", "corrector": "ald", "snr": 0.1, "n_steps": 3},
    {"predictor": "ancestral_sampling", "corrector": "ald", "snr": 0.16},
]
ODES = [
    {"method": method, "rtol": tolerance, "atol": tolerance, "denoise": denoise}
    for method in ("RK45", "DOP853", "RK23")
    for tolerance in (1e-3, 1e-5)
    for denoise in (False, True)
]


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import sampling
    import sde_lib

    samples = []
    for options in CASES:
        for n in (4, 10):
            batches = [slice(0, 1), slice(1, 2)] if options.get("batch") == 1 else [slice(0, 2)]
            parts = [predictor_corrector(sampling, sde_lib, options, n, rows) for rows in batches]
            result = problem.rounded(torch.cat(parts), 10)
            samples.append(
                {
                    "name": "pc",
                    "options": options,
                    "grid": f"exponential {n}, zero",
                    "result": result,
                }
            )
    for options in ODES:
        result, evaluations = ode(sampling, sde_lib, options)
        entry = {"name": "ode", "options": options, "grid": None, "nfe": evaluations}
        samples.append({**entry, "result": problem.rounded(result)})
    grids = {f"exponential {n}, zero": exponential(n).tolist() for n in (4, 10)}
    problem.write("score_sde", "score_sde_pytorch cb1f359", samples, [], more_grids=grids)


if __name__ == "__main__":
    main()
