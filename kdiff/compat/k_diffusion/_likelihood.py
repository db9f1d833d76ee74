"""`log_likelihood` by the probability-flow ODE, with k-diffusion's signature (Song et al. 2021,
"Score-Based Generative Modeling", section 4.3 and appendix D.2)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kdiff.compat.k_diffusion._steps import to_d
from kdiff.driver import NonFiniteError

# Dormand & Prince 1980: RK5(4)7M. Each row is a stage, and the last one is also the step's result.
# _ERROR is its difference from the embedded method of order 4.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

_Slope = Callable[[float, Tensor], Tensor]


@torch.no_grad()
def log_likelihood(
    model, x, sigma_min, sigma_max, extra_args=None, atol=1e-4, rtol=1e-4
) -> tuple[Tensor, dict[str, int]]:
    """The log likelihoods `[N]` of `x` at noise level `sigma_min`, in nats, and
    {"fevals": evaluations of the model}. An estimate: the trace of the Jacobian is taken along one
    random direction of signs, drawn from torch's global generator (Hutchinson 1989). ValueError
    unless 0 < sigma_min < sigma_max; NonFiniteError if the model's output is not finite."""
    start, end = float(sigma_min), float(sigma_max)
    if not 0 < start < end < math.inf:
        raise ValueError(f"0 < sigma_min < sigma_max < inf must hold, not {start:g} and {end:g}")
    signs = torch.randint_like(x, 2) * 2 - 1
    evaluations = 0

    def slope(sigma: float, state: Tensor) -> Tensor:
        """The slope of x, and in the last column of the log likelihood, which is its divergence."""
        nonlocal evaluations
        evaluations += 1
        with torch.enable_grad():
            at = state[:, :-1].reshape(x.shape).requires_grad_()
            levels = at.new_full([len(x)], sigma)
            d = to_d(at, levels, model(at, levels, **(extra_args or {})))
            (gradient,) = torch.autograd.grad((d * signs).sum(), at)
        divergence = (signs * gradient).flatten(1).sum(1)
        return torch.cat([d.detach().flatten(1), divergence[:, None]], dim=1)

    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1)
    state = _integral(slope, state, start, end, atol, rtol)
    latent, change = state[:, :-1], state[:, -1]
    prior = torch.distributions.Normal(0, end).log_prob(latent).sum(1)
    return prior + change, {"fevals": evaluations}


def _integral(f: _Slope, y: Tensor, s: float, end: float, atol: float, rtol: float) -> Tensor:
    """y at `end`, in steps that keep their estimated error within the tolerances."""
    h, first = s / 10, f(s, y)
    while s < end:
        h = min(h, end - s)
        slopes, next_y = [first], y
        for row in _STAGES:
            next_y = y + h * sum(a * k for a, k in zip(row, slopes, strict=True))
            slopes.append(f(s + h * min(1.0, sum(row)), next_y))
        tolerance = atol + rtol * torch.maximum(y.abs(), next_y.abs())
        scaled = h * sum(e * k for e, k in zip(_ERROR, slopes, strict=True)) / tolerance
        error = max(_rms(scaled[:, :-1]), _rms(scaled[:, -1:]))
        if math.isnan(error) or s + h == s:
            raise NonFiniteError(f"the likelihood cannot be integrated beyond sigma = {s:g}")
        if error <= 1:
            s, y, first = (end if h == end - s else s + h), next_y, slopes[-1]
        h *= min(10.0, max(0.2, 0.9 * (error + 1e-12) ** -0.2))
    return y


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
