"""Writes tests/golden/zoo_restart.json: what the restart sampler of Xu et al. (2023) computes on
the problem of tools/golden_problem.py. In a throw-away environment:

    git clone https://github.com/Newbeeer/diffusion_restart_sampling
    pip install torch numpy
    python tools/make_zoo_restart_golden.py diffusion_restart_sampling/benchmarks

Made with commit 8cbcb07 (2023-12-06) and torch 2.14.

`restart` is {any key: [levels, times, t_min, t_max]}; t_min is moved to the nearest level of the
grid. A restart has levels - 1 steps of Heun. Its levels are rounded to float32, so results are
right to about 1e-7. Noise: the k-th time of a restart from t_min to t_max draws
`pseudo_noise(t_min, t_max, k)`.
"""

from __future__ import annotations

import json
import sys
import types
from unittest import mock

import torch

import golden_problem as problem

CASES = [
    {"restart": {}},
    {"restart": {"0": [3, 2, 0.14, 0.30]}, "s_noise": 1.0},  # the paper's, CIFAR-10 with EDM
    {"restart": {"0": [3, 2, 0.06, 0.30]}, "s_noise": 1.003},
    {"restart": {"0": [3, 1, 0.06, 0.30], "1": [4, 3, 0.6, 5.0]}, "s_noise": 1.0},
]


class Net:
    """What EDM's samplers ask of a network."""

    img_channels, img_resolution, sigma_min, sigma_max = 3, 1, 0.0, float("inf")

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)

    def __call__(self, x, sigma, class_labels=None):
        return problem.denoise(x, sigma.double())


def noises(sigmas: torch.Tensor, restarts: dict):
    """What the sampler draws, in turn: also in its main steps, where it adds none."""
    nothing = torch.zeros(2, 3, 1, 1)
    at = {int((sigmas - v[2]).abs().argmin()): v for v in restarts.values()}
    for i in range(len(sigmas) - 1):
        yield nothing
        levels, times, _, highest = at.get(i + 1, (1, 0, 0, 0))
        for k in range(times):
            yield problem.pseudo_noise(sigmas[i + 1], highest, k).view(2, 3, 1, 1)
            yield from [nothing] * (levels - 1)


def run(sampler, restart: dict, s_noise: float, steps: int) -> torch.Tensor:
    draws = noises(problem.karras(steps), restart)
    result = sampler(
        Net(),
        torch.tensor(problem.START, dtype=torch.float64).view(2, 3, 1, 1),
        randn_like=lambda x: next(draws),
        num_steps=steps,
        sigma_min=problem.SIGMA_MIN,
        sigma_max=problem.SIGMA_MAX,
        S_noise=s_noise,
        restart_info=json.dumps(restart) if restart else "",
    )
    assert next(draws, None) is None
    return result


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    quiet = types.SimpleNamespace(print0=lambda *args: None)
    stubs = {
        name: mock.MagicMock() for name in ("click", "tqdm", "PIL", "PIL.Image", "dnnlib", "scipy")
    }
    stubs["torch_utils"] = types.SimpleNamespace(distributed=quiet, misc=None)
    stubs["torchvision"] = stubs["torchvision.utils"] = mock.MagicMock()
    for name in ("click.command", "click.option"):
        setattr(stubs["click"], name.split(".")[1], lambda *a, **k: lambda function: function)
    with mock.patch.dict(sys.modules, stubs):
        from generate_restart import restart_sampler
    samples = [
        {
            "name": "restart",
            "options": {"s_noise": 1.0, **options},
            "grid": f"{steps}, zero",
            "result": problem.rounded(
                run(restart_sampler, **{"s_noise": 1.0, **options}, steps=steps).view(2, 3), 10
            ),
        }
        for options in CASES
        for steps in (4, 10)
    ]
    problem.write("restart", "diffusion_restart_sampling 8cbcb07", samples, [])


if __name__ == "__main__":
    main()
