"""What a linear sampler makes of N(MEAN, STD^2), exactly.

D is affine in x there, so a result is a + b x_T + sum_i c_i n_i, with coefficients that are found
by running the sampler on vectors of them.
"""

import math
from dataclasses import dataclass

import numpy as np

from kdiff.samplers import REGISTRY, Walk
from kdiff.samplers.outline import Draw, outline

MEAN, STD = 0.7, 0.5


@dataclass(frozen=True)
class Response:
    """constant + start x_T + sum_i noises_i n_i, with the interval of each n_i."""

    constant: float
    start: float
    noises: np.ndarray
    draws: list[Draw]


def response(name: str, options: dict, sigmas) -> Response:
    """Of the sampler on this grid."""
    sampler = REGISTRY[name]
    options = sampler.with_defaults(options)
    basis = np.eye(2 + len(outline(sampler, sigmas, options).draws))
    draws: list[Draw] = []

    def noise(s, t, draw=0, *, stream=""):
        draws.append(Draw(s, t, draw, stream))
        return basis[1 + len(draws)]

    walk = Walk(sampler.start(basis[1], sigmas, noise, options))
    while walk.ask is not None:
        shrink = STD**2 / (STD**2 + walk.ask.sigma**2)
        walk.answer((1 - shrink) * MEAN * basis[0] + shrink * walk.ask.x)
    constant, start, *noises = walk.result
    return Response(constant, start, np.array(noises), draws)


def brownian_covariance(ours: list[Draw], others: list[Draw]) -> np.ndarray:
    """Of the normalised increments of one path over log sigma, which share what their intervals
    share."""
    a, b = (-np.log([draw[:2] for draw in ours]).T)[:, :, None]
    c, d = (-np.log([draw[:2] for draw in others]).T)[:, None, :]
    shared = np.maximum(0, np.minimum(b, d) - np.maximum(a, c))
    return shared / np.sqrt((b - a) * (d - c))


def covariance(kind: str, draws: list[Draw]) -> np.ndarray:
    """Of the noises drawn: white ones are independent."""
    if kind == "white":
        assert len(set(draws)) == len(draws)
        return np.eye(len(draws))
    return brownian_covariance(draws, draws) if draws else np.zeros((0, 0))


def distribution(r: Response, name: str, sigma_max: float) -> tuple[float, float]:
    """Mean and variance of the result, started from the exact marginal at sigma_max."""
    spread = r.noises @ covariance(REGISTRY[name].noise, r.draws) @ r.noises
    variance = r.start**2 * (STD**2 + sigma_max**2) + spread
    return r.constant + r.start * MEAN, variance


def exact_distribution(name: str, options: dict, sigmas) -> tuple[float, float]:
    """`distribution` of the sampler on this grid."""
    return distribution(response(name, options, sigmas), name, sigmas[0])


def distance_on_one_path(one: Response, other: Response, sigma_max: float) -> float:
    """The root mean square difference of two results from the same start, whose noises are
    increments of one Brownian path."""
    constant, start = one.constant - other.constant, one.start - other.start
    square = (constant + start * MEAN) ** 2 + start**2 * (STD**2 + sigma_max**2)
    for a, b, sign in ((one, one, 1), (other, other, 1), (one, other, -2)):
        square += sign * a.noises @ brownian_covariance(a.draws, b.draws) @ b.noises
    return math.sqrt(max(0.0, square))
