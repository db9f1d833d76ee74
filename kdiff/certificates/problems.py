"""Problems in one dimension, of which everything is known exactly.

D of a mixture of Gaussians is a closed form. The flow of its probability-flow ODE keeps quantiles,
F_s(x_s) = F_t(x_t), so that its solution is a root of the distribution function. And samples can be
judged by their distance in distribution, which in one dimension takes no more than sorting.
A model acts on each number of a tensor by itself: a tensor [1, N] holds N runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEXT_TO_ZERO = 1e-12  # a noise level
HALVINGS = 80  # of a bracket: to the last bit of a float64


def numbers(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Late:
    """A D that bends at small sigma only. The first steps of a multistep method, of low order, then
    leave no error if they are exact on what is left: on 0, or, with `unit`, on D of N(0, 1)."""

    unit: bool = False

    def __call__(self, x: Tensor, sigma: float, **cond: object) -> Tensor:
        return self.unit / (1 + sigma**2) * x + math.exp(-((sigma / 3) ** 2)) * (2 * x + 0.5).sin()


@dataclass(frozen=True)
class Mixture:
    """D(x; sigma) for sum_k w_k N(mean_k, std_k^2) of each number, and its quantiles."""

    means: Sequence[float]
    stds: Sequence[float]
    weights: Sequence[float]
    about: str = ""

    sigma_min, sigma_max, sigmas = 0.002, 80.0, None
    shape, classes = (1,), ()

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return numbers(self.means), numbers(self.stds), numbers(self.weights).log()

    @property
    def std(self) -> float:
        """The standard deviation of the data."""
        means, stds, log_w = self._tensors
        mean = (log_w.exp() * means).sum()
        return float((log_w.exp() * (stds**2 + (means - mean) ** 2)).sum().sqrt())

    def __call__(self, x: Tensor, sigma: float, **cond: object) -> Tensor:
        means, stds, log_w = (t.to(x.dtype) for t in self._tensors)
        variances = stds**2
        total = variances + sigma**2
        offsets = x[..., None] - means
        r = (log_w - offsets**2 / (2 * total) - total.log() / 2).softmax(-1)
        return (r * (means + variances / total * offsets)).sum(-1)

    def log_tail(self, x: Tensor, sigma: float, sign: Tensor) -> Tensor:
        """log P(X < x) at noise level `sigma`; log P(X > x) where `sign` is -1."""
        means, stds, log_w = self._tensors
        scaled = sign[..., None] * (x[..., None] - means) / torch.hypot(stds, numbers([sigma]))
        return (log_w + torch.special.log_ndtr(scaled)).logsumexp(-1)

    def at_tail(self, log_p: Tensor, sigma: float, sign: Tensor) -> Tensor:
        """The x whose `log_tail` is `log_p`, by bisection."""
        reach = 40 * max(*self.stds, sigma)
        low = torch.full_like(log_p, min(self.means) - reach)
        high = torch.full_like(log_p, max(self.means) + reach)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = sign * (self.log_tail(middle, sigma, sign) - log_p) > 0
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def flow(self, x: Tensor, s: float, t: float) -> Tensor:
        """Where the probability-flow ODE takes `x` from noise level `s` to `t`: the same quantile,
        counted from whichever end is nearer."""
        half = torch.tensor(0.5, dtype=torch.float64).log()
        sign = torch.where(self.log_tail(x, s, torch.ones_like(x)) < half, 1.0, -1.0).to(x)
        return self.at_tail(self.log_tail(x, s, sign), t, sign)

    def end(self, x: Tensor, sigma: float, **cond: object) -> Tensor:
        """Where the ODE ends: what a student of the model answers with in place of D."""
        return self.flow(x, sigma, NEXT_TO_ZERO)

    def quantiles(self, n: int, sigma: float) -> Tensor:
        """`[1, n]`: the (i + 1/2) / n quantiles at noise level `sigma`; at 0, of the data."""
        p = (torch.arange(n, dtype=torch.float64)[None] + 0.5) / n
        sign = torch.where(p < 0.5, 1.0, -1.0).to(p)
        return self.at_tail(torch.where(p < 0.5, p, 1 - p).log(), max(sigma, NEXT_TO_ZERO), sign)


# Two humps of different height and width. Orders are measured from starts a quarter to a half of
# sigma_max away, at which even samplers of order 4 are near their asymptotic regime at 16 steps and
# not yet at the rounding error at 256.
HUMPS = Mixture((0.21, -0.21), (0.26, 0.17), (0.6, 0.4))


class Flow(NamedTuple):
    """Starts at noise level `high`, and where the ODE of the humps takes them at `low`."""

    starts: Tensor
    low: float
    high: float
    ends: Tensor


@cache
def humps() -> Flow:
    """31 starts at sigma = 20, down to 0.02."""
    starts = torch.linspace(-11, -5, 31, dtype=torch.float64)[None]
    return Flow(starts, 0.02, 20.0, HUMPS.flow(starts, 20.0, 0.02))


GAUSSIAN = Mixture((0.7,), (0.5,), (1.0,))

STANDARD = {
    "narrow": Mixture(
        (-1.0, 0.2, 0.9),
        (0.05, 0.1, 0.05),
        (0.3, 0.4, 0.3),
        "three narrow peaks: which one a sample goes to is decided at sigma of about 1, and its "
        "detail at a tenth of that",
    ),
    "wide": Mixture(
        (-0.5, 0.5),
        (0.4, 0.25),
        (0.5, 0.5),
        "two humps that overlap, with EDM's sigma_data of 0.5 or so: a smooth D everywhere",
    ),
    "points": Mixture(
        (-1.0, -0.7, -0.1, 0.3, 1.0),
        (0.0,) * 5,
        (0.2,) * 5,
        "five points, which the ideal denoiser of a data set knows by heart: D becomes a step "
        "function at low sigma, and samples end on the points themselves",
    ),
}
