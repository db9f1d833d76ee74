"""What a linear sampler makes of a Gaussian, exactly.

There D is affine in x. So a result is a + b x_T + sum_i c_i n_i, with coefficients that are found
by running the sampler on vectors of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdiff.certificates.problems import GAUSSIAN
from kdiff.certificates.runs import Options
from kdiff.samplers import Sampler, Walk
from kdiff.samplers.outline import Draw, outline

MEAN, STD = GAUSSIAN.means[0], GAUSSIAN.stds[0]


@dataclass(frozen=True)
class Response:
    """constant + start x_T + sum_i noises_i n_i, with the draw of each n_i."""

    constant: float
    start: float
    noises: np.ndarray
    draws: Sequence[Draw]

    def moments(self, kind: str, sigma_max: float) -> tuple[float, float]:
        """Mean and variance, from the exact marginal at `sigma_max`, with noise of this kind."""
        spread = self.start**2 * (STD**2 + sigma_max**2)
        covariance = _increments if kind == "brownian" else _equal
        spread += self.noises @ covariance(self.draws, self.draws) @ self.noises
        return self.constant + self.start * MEAN, float(spread)

    def distance(self, other: Response, sigma_max: float) -> float:
        """The root mean square difference from the same start, all noises being increments of one
        Brownian path over log sigma."""
        constant, start = self.constant - other.constant, self.start - other.start
        square = (constant + start * MEAN) ** 2 + start**2 * (STD**2 + sigma_max**2)
        for a, b, sign in ((self, self, 1), (other, other, 1), (self, other, -2)):
            square += sign * float(a.noises @ _increments(a.draws, b.draws) @ b.noises)
        return math.sqrt(max(0.0, square))


def response(sampler: Sampler, options: Options, sigmas: Sequence[float]) -> Response:
    """Of a linear sampler on this grid. The end of the ODE, for students, shrinks by the root of
    what D shrinks by."""
    known = outline(sampler, sigmas, options)
    draws = () if known is None else known.draws
    basis = np.eye(2 + len(draws))
    noises = iter(basis[2:])
    walk = Walk(sampler.start(basis[1], sigmas, lambda *_, **__: next(noises), options))
    while walk.ask is not None:
        shrink = (STD / math.hypot(STD, walk.ask.sigma)) ** (1 if sampler.student else 2)
        walk.answer((1 - shrink) * MEAN * basis[0] + shrink * walk.ask.x)
    constant, start = walk.result[:2]
    return Response(float(constant), float(start), walk.result[2:], draws)


def _equal(ours: Sequence[Draw], others: Sequence[Draw]) -> np.ndarray:
    """White noises are independent unless they are the same."""
    numbers: dict[Draw, int] = {}
    a, b = ([numbers.setdefault(draw, len(numbers)) for draw in some] for some in (ours, others))
    return np.equal.outer(a, b).astype(float)


def _increments(ours: Sequence[Draw], others: Sequence[Draw]) -> np.ndarray:
    """Normalised increments of a Brownian path over log sigma share what their intervals share;
    further draws and streams have paths of their own."""
    a, b = _ends(ours)[..., None]
    c, d = _ends(others)[:, None, :]
    highest, lowest = np.minimum(np.maximum(a, b), np.maximum(c, d)), np.minimum(a, b)
    shared = np.maximum(0, highest - np.maximum(lowest, np.minimum(c, d)))
    paths: dict[tuple[int, str], int] = {}
    i, j = (
        [paths.setdefault((draw.draw, draw.stream), len(paths)) for draw in some]
        for some in (ours, others)
    )
    lengths = (b - a) * (d - c)
    return np.equal.outer(i, j) * np.sign(lengths) * shared / np.sqrt(np.abs(lengths))


def _ends(draws: Sequence[Draw]) -> np.ndarray:
    """`[2, draws]`: lambda at both ends of each interval."""
    return -np.log([draw[:2] for draw in draws] or np.ones((0, 2))).T
