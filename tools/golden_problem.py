"""The problem that the tools/make_zoo_*_golden.py scripts solve with other projects' samplers: a
small Gaussian mixture in float64, four noise grids, and noise that is a known smooth function.

Imports nothing of kdiff, so that it works in the environments of those projects. Arrays are torch's
where torch is installed, and else numpy's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

try:
    import torch
except ImportError:
    torch = None

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


def array(values):
    values = np.asarray(values, dtype=np.float64)
    return values if torch is None else torch.from_numpy(values)


def karras(n: int):
    """n noise levels of Karras et al. (2022), eq. 5, with rho = 7, and a final zero."""
    low, high = SIGMA_MIN ** (1 / 7), SIGMA_MAX ** (1 / 7)
    return array([*(high + np.linspace(0, 1, n) * (low - high)) ** 7, 0.0])


GRIDS = {
    "4, zero": karras(4),
    "10, zero": karras(10),
    "4, sigma_min": karras(5)[:-1],
    "10, sigma_min": karras(11)[:-1],
}


def start(sigma=SIGMA_MAX):
    return sigma * array(START)


def denoise(x, sigma, weights: list | None = None):
    """E[x0 | x] of the mixture, for x of any shape [N, ..]. Written out here too, so that kdiff's
    own is checked as well."""
    means, stds = np.array(MODEL["means"]), np.array(MODEL["stds"])
    prior = np.array(MODEL["weights"] if weights is None else weights)
    flat = np.asarray(x).reshape(len(x), -1)
    total = stds**2 + np.asarray(sigma, dtype=np.float64).reshape(-1, 1) ** 2  # [N, K]
    away = flat[:, None] - means  # [N, K, d]
    weight = -0.5 * (away**2).sum(-1) / total - 0.5 * flat.shape[1] * np.log(total) + np.log(prior)
    posterior = np.exp(weight - weight.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    each = means + (stds**2 / total)[..., None] * away
    return array((posterior[..., None] * each).sum(1).reshape(x.shape))


def pseudo_noise(s, t, draw: int = 0):
    """Stands for noise of the interval (s, t): smooth, so that rounding of s and t cannot matter,
    and different for each interval and for each draw in it."""
    s, t, index = float(s), float(t), np.arange(1.0, 7.0)
    return array(np.sin(index * (1 + np.log(s)) + np.log(t) / index + 0.7 * draw).reshape(2, 3))


def rounded(values, digits: int = 13) -> list | None:
    """A nested list with so many significant digits; None for no result."""
    if values is None:
        return None
    values = np.asarray(values, dtype=np.float64)
    return np.array([float(f"{v:.{digits}g}") for v in values.flat]).reshape(values.shape).tolist()


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
