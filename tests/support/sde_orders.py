"""The strong and the weak order of a linear sampler that draws noise, measured without sampling."""

from itertools import pairwise

import numpy as np

import kdiff
from gaussian_moments import MEAN, STD, Response, distance_on_one_path, distribution, response

SIGMA_MAX, SIGMA_MIN = 20.0, 0.05
STEPS = (32, 64, 128, 256)


def _grids():
    ends = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "final": "sigma_min"}
    return [kdiff.schedule("karras", n, **ends) for n in STEPS]


def _slope(steps, errors) -> float:
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def orders(name: str, options: dict) -> tuple[float, float]:
    """(strong, weak)."""
    results = [response(name, options, grid) for grid in _grids()]
    return strong_order(results), weak_order(name, results)


def strong_order(results: list[Response]) -> float:
    """How fast results on finer and finer grids converge on one Brownian path."""
    changes = [distance_on_one_path(a, b, SIGMA_MAX) for a, b in pairwise(results)]
    return _slope(STEPS[:-1], changes)


def weak_order(name: str, results: list[Response]) -> float:
    """How fast mean and variance converge to the exact ones."""
    errors = []
    for result in results:
        mean, variance = distribution(result, name, SIGMA_MAX)
        errors.append(abs(mean - MEAN) / STD + abs(variance / (STD**2 + SIGMA_MIN**2) - 1))
    return _slope(STEPS, errors)
