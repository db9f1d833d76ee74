"""SciRE-Solver's own code, through values that tools/make_zoo_scire_golden.py made with it in
float64."""

import json

import pytest
import torch

import places
from kdiff.analytic import GaussianMixture
from kdiff.samplers import Walk
from kdiff.samplers.scire import scire2_step, scire3_step

GOLDEN = json.loads((places.GOLDEN / "zoo_scire.json").read_text())
SINGLE = [
    case
    for case in GOLDEN["samples"]
    if case["options"]["algorithm_type"] == "scire_v1" and case["options"]["method"] != "multistep"
]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


MODEL = GaussianMixture(**{key: tensor(value) for key, value in GOLDEN["model"].items()})


def distance(result, expected):
    """The largest difference, relative to the largest component."""
    return float((result - expected).abs().max() / expected.abs().max())


def terms(i: int, steps: int) -> int:
    """The m of its code in the i-th step: 3, 5, .. up to the middle, and down again."""
    if i < steps // 2:
        return 3 + 2 * i
    return steps + 2 if i == steps // 2 else 2 * (steps - i) + 2


def with_terms_by_step(x, sigmas, order):
    """The steps of `scire2`, or of `scire3` as published, with their code's m."""
    for i in range(len(sigmas) - 1):
        m = terms(i, len(sigmas) - 1)
        ends = x, sigmas[i], sigmas[i + 1]
        x = yield from scire2_step(*ends, m, 0.5) if order == 2 else scire3_step(*ends, m, 1)
    return x


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: f"{case['options']}-{case['grid']}")
def test_single_steps(case):
    sigmas = GOLDEN["grids"][case["grid"]]
    start = sigmas[0] * tensor(GOLDEN["start"])
    walk = Walk(with_terms_by_step(start, sigmas, case["options"]["order"]))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    assert distance(walk.result, tensor(case["result"])) < 1e-11  # the goldens have 13 digits
