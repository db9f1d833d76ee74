"""The problem that the tools/make_*_golden.py scripts solve with other projects' samplers: a small
Gaussian mixture in float64, two noise grids, and noise that is a known smooth function.

Imports torch and nothing of kdiff, so that it works in the environments of those projects.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[1] / "tests/golden"

MODEL = {
    "means": [[1.0, -0.5, 0.25], [-0.75, 0.5, 1.0], [0.5, 1.25, -1.0]],
    "stds": [0.3, 0.5, 0.1],
    "weights": [0.5, 0.3, 0.2],
}
START = [[0.6, -1.1, 0.9], [-1.4, 0.2, -0.3]]  # times sigma_max
SIGMA_MIN, SIGMA_MAX = 0.02, 20.0
# Guidance: the unconditional model is the mixture with these weights.
UNCONDITIONAL, SCALE = [0.2, 0.3, 0.5], 2.0


def karras(n: int) -> torch.Tensor:
    """n noise levels of Karras et al. (2022), eq. 5, with rho = 7, and a final zero."""
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    low, high = SIGMA_MIN ** (1 / 7), SIGMA_MAX ** (1 / 7)
    return torch.cat([(high + ramp * (low - high)) ** 7, torch.zeros(1)])


GRIDS = {
    "4, zero": karras(4),
    "10, zero": karras(10),
    "4, sigma_min": karras(5)[:-1],
    "10, sigma_min": karras(11)[:-1],
}


def start(sigma: float | torch.Tensor = SIGMA_MAX) -> torch.Tensor:
    return sigma * torch.tensor(START, dtype=torch.float64)


def denoise(x: torch.Tensor, sigma: torch.Tensor, weights: list | None = None) -> torch.Tensor:
    """E[x0 | x] of the mixture, for x of any shape [N, ..]. Written out here too, so that kdiff's
    own is checked as well."""
    means, stds, own = (
        torch.tensor(MODEL[key], dtype=torch.float64) for key in ("means", "stds", "weights")
    )
    prior = own if weights is None else torch.tensor(weights, dtype=torch.float64)
    flat = x.reshape(len(x), -1)
    sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
    total = stds**2 + sigma**2  # [N, K]
    away = flat[:, None] - means  # [N, K, d]
    log_likelihood = -0.5 * (away**2).sum(-1) / total - 0.5 * flat.shape[1] * total.log()
    posterior = (prior.log() + log_likelihood).softmax(-1)
    return (posterior[..., None] * (means + (stds**2 / total)[..., None] * away)).sum(1).view_as(x)


def pseudo_noise(s: float, t: float, draw: int = 0) -> torch.Tensor:
    """Stands for noise of the interval (s, t): smooth, so that rounding of s and t cannot matter,
    and different for each interval and for each draw in it."""
    s, t = (torch.as_tensor(v, dtype=torch.float64) for v in (s, t))
    index = torch.arange(1.0, len(START) * len(START[0]) + 1, dtype=torch.float64)
    return torch.sin(index * (1 + s.log()) + t.log() / index + 0.7 * draw).view(len(START), -1)


def rounded(values: torch.Tensor | None, digits: int = 13) -> list | None:
    """A nested list with so many significant digits; None for no result."""
    if values is None:
        return None
    short = [float(f"{v:.{digits}g}") for v in values.double().flatten().tolist()]
    return torch.tensor(short, dtype=torch.float64).view(values.shape).tolist()


def write(peer: str, version: str, samples: list[dict], schedules: list[dict], **more) -> None:
    """tests/golden/zoo_<peer>.json, a line a result."""
    golden = {
        "version": version,
        "model": MODEL,
        "start": START,
        "grids": {key: sigmas.tolist() for key, sigmas in GRIDS.items()},
        **more,
        "samples": samples,
        "schedules": schedules,
    }
    out = FOLDER / f"zoo_{peer}.json"
    out.write_text(json.dumps(golden).replace('{"name"', '\n{"name"') + "\n")
    failed = sum(sample["result"] is None for sample in samples)
    print(f"{len(samples)} results ({failed} crashed), {len(schedules)} schedules in {out}")
