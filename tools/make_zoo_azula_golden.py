"""Writes tests/golden/zoo_azula.json: what azula's samplers compute on the problem of
tools/golden_problem.py, with alpha = 1 and time = sigma. In a throw-away environment:

    pip install torch tqdm einops azula==0.11.1
    python tools/make_zoo_azula_golden.py

Made with azula 0.11.1 and torch 2.14.

Only the grids that end at sigma_min: its exponential samplers take the logarithm of every level.
Noise: `torch.randn_like` returns `pseudo_noise(t, s)` in a step from t to s, and
`pseudo_noise(t, t, k)` for correction k of PCSampler.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from unittest import mock

import torch
from azula import sample

import golden_problem as problem

torch.set_default_dtype(torch.float64)

ORDERS = [{"order": n} for n in (1, 2, 3, 4)]
CASES: dict[str, list[dict]] = {
    "DDPMSampler": [{}],
    "DDIMSampler": [{"eta": 0.0}, {"eta": 0.5}, {"eta": 1.0}],
    "EulerSampler": [{}],
    "HeunSampler": [{}],
    "ItoSampler": [{"eta": 0.0}, {"eta": 0.5}, {"eta": 1.0}],
    "zABSampler": ORDERS,
    "vABSampler": ORDERS,
    "zEABSampler": ORDERS,
    "xEABSampler": ORDERS,
    "REABSampler": ORDERS,
    "PCSampler": [{}, {"corrections": 2, "delta": 0.1}],
}


class Mixture:
    """azula's denoiser: E[x0 | x] and its noise schedule."""

    def schedule(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(t), t

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(mean=problem.denoise(x, t))


def noises(name: str, options: dict, sigmas: torch.Tensor):
    """What the sampler draws, in turn."""
    for t, s in itertools.pairwise(sigmas):
        if name == "PCSampler":
            yield from (problem.pseudo_noise(t, t, k) for k in range(options.get("corrections", 1)))
        else:
            yield problem.pseudo_noise(t, s)


def run(name: str, options: dict, sigmas: torch.Tensor) -> torch.Tensor:
    kind = type(name, (getattr(sample, name),), {"timesteps": sigmas})
    draws = noises(name, options, sigmas)
    with mock.patch.object(torch, "randn_like", lambda x: next(draws)):
        return kind(Mixture(), silent=True, **options)(problem.start(sigmas[0]))


def main() -> None:
    samples = [
        {"name": name, "options": options, "grid": grid, "result": problem.rounded(result)}
        for name, variants in CASES.items()
        for options in variants
        for grid, sigmas in problem.GRIDS.items()
        if grid.endswith("sigma_min")
        for result in [run(name, options, sigmas)]
    ]
    problem.write("azula", "azula 0.11.1", samples, [])


if __name__ == "__main__":
    main()
