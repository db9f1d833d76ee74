"""STORK-2's own code, through values that tools/make_zoo_stork_golden.py made with it in
float64."""

import json

import pytest
import torch

import places
from kdiff.analytic import GaussianMixture
from kdiff.samplers.stork import published, quadrature

GOLDEN = json.loads((places.GOLDEN / "zoo_stork.json").read_text())
TWO = [case for case in GOLDEN["samples"] if case["options"]["derivative_order"] == 2]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


MODEL = GaussianMixture(**{key: tensor(value) for key, value in GOLDEN["model"].items()})


def velocity(z, sigma):
    x = (1 + sigma) * z
    d = MODEL(x, sigma)
    return (x - d) / sigma - d


def distance(result, expected):
    """The largest difference, relative to the largest component."""
    return float((result - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", TWO, ids=lambda case: f"{case['options']}-{case['grid']}")
def test_stork2(case):
    """Its first step has an evaluation in its middle, and its last one has the same rule as all
    others; the steps between are those of `stork2` as published."""
    first, middle, *others = case["asked"]
    m = quadrature(case["options"]["s"], as_published=True)
    z = first / (1 + first) * tensor(GOLDEN["start"])
    h = others[0] / (1 + others[0]) - first / (1 + first)
    history = [velocity(z, first)]
    z = z + h / 2 * history[0]
    z = z + h * (0.75 * velocity(z, middle) - 0.25 * history[0])
    at = [first]
    for s, t in zip(others, [*others[1:], 0.0], strict=True):
        history, at = [velocity(z, s), *history[:2]], [s, *at[:2]]
        z = z + sum(c * v for c, v in zip(published(m, at, t), history, strict=True))
    assert distance(z, tensor(case["result"])) < 1e-11  # the goldens have 13 digits
