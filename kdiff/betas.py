"""Discrete variance-preserving noise schedules: `alphas_cumprod[t]`, and the sigma of each t."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kdiff.counts import MOST_STEPS, finite_number, whole_number
from kdiff.names import UnknownName, unknown_name

# An alphas_cumprod of exactly zero (zero terminal SNR) has sigma = infinity, which the
# variance-exploding frame cannot hold. 2^-24 puts it at sigma = 4096, where D no longer sees x. If
# the timestep before is there already, it gets a quarter of its alphas_cumprod, twice its sigma.
STANDS_FOR_ZERO = 2.0**-24
ROUNDING = 1e-6  # of 1 - beta in float32, if beta was meant to be 1
SMALLEST_ALPHA_CUMPROD = 1e-300  # sigma^2 must be a number


def _linear(steps: int, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    return np.linspace(start, end, steps)


def _scaled_linear(steps: int, start: float = 0.00085, end: float = 0.012) -> np.ndarray:
    return np.linspace(start**0.5, end**0.5, steps) ** 2


def _cosine(steps: int, s: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    f = np.cos((np.arange(steps + 1) / steps + s) / (1 + s) * math.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], max_beta)


BETAS = {"linear": _linear, "scaled_linear": _scaled_linear, "cosine": _cosine}


def alphas_cumprod(kind: str = "linear", steps: int = 1000, **settings: float) -> list[float]:
    """`prod_{i <= t} (1 - beta_i)` for t = 0 .. steps - 1, in float64.

    `linear`: beta from `start` to `end` (Ho et al. 2020); `scaled_linear`: its square root is
    linear (Stable Diffusion); `cosine`: Nichol & Dhariwal 2021, eq. 17. ValueError for another
    name, or if a beta is above 1.
    """
    steps = timesteps(steps)
    if kind not in BETAS:
        raise UnknownName(unknown_name("beta schedule", kind, BETAS))
    numbers = {key: finite_number(key, value) for key, value in settings.items()}
    betas = BETAS[kind](steps, **numbers)
    if betas.max() > 1 + ROUNDING:
        raise ValueError(
            f"betas must be at most 1, but {kind} ones of {steps} steps go to {betas.max():.4g}"
        )
    return [float(a) for a in np.cumprod(1 - betas)]


def zero_terminal_snr(alphas_cumprod: Sequence[float]) -> list[float]:
    """The same, moved so that nothing is left of the data at the last timestep: sqrt(a) is shifted
    to end at 0, and scaled to begin where it did (Lin et al. 2023, algorithm 1). ValueError if
    there are not at least two that decrease."""
    root = np.sqrt(np.array(alphas_cumprod, dtype=np.float64))
    if root.ndim != 1 or len(root) < 2 or not root[0] > root[-1]:
        raise ValueError("alphas_cumprod must be a list that decreases")
    return [float(a) for a in ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2]


def iddpm_sigmas(steps: int, c1: float, c2: float) -> list[float]:
    """iDDPM's noise levels, rising (Karras et al. 2022, table 1): u_(j-1) = sqrt((u_j^2 + 1) /
    max(a_(j-1) / a_j, c1) - 1), u_steps = 0, with a_j = sin^2(pi j / (2 steps (c2 + 1)))."""
    a = [math.sin(math.pi / 2 * j / steps / (c2 + 1)) ** 2 for j in range(steps + 1)]
    u = [0.0]
    for j in range(steps, 0, -1):
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(a[j - 1] / a[j], c1) - 1))
    return u[1:]


def timesteps(steps: int) -> int:
    """The number of timesteps, which may come from a file. ValueError unless it is a whole number
    from 2 to a million."""
    return whole_number("steps", steps, 2, MOST_STEPS)


def sigmas_of(alphas_cumprod: Sequence[float]) -> list[float]:
    """sigma_t = sqrt((1 - a_t) / a_t): the noise level of step t once x_t is divided by sqrt(a_t).

    If the last one is 0, sigma is 4096, or twice the sigma before if that is there already.
    ValueError unless `alphas_cumprod` decreases strictly within [0, 1).
    """
    wanted = "alphas_cumprod must be a list that decreases strictly within [0, 1)"
    try:
        a = np.array(alphas_cumprod, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{wanted}, not {alphas_cumprod!r:.80}") from None
    if a.ndim != 1 or len(a) < 2:
        raise ValueError(wanted)
    if -ROUNDING * a[-2] <= a[-1] <= 0:
        a[-1] = STANDS_FOR_ZERO if a[-2] > STANDS_FOR_ZERO else a[-2] / 4
    right = (a < np.append(1, a[:-1])) & (a >= SMALLEST_ALPHA_CUMPROD)
    if not right.all():
        t = int(np.argmin(right))
        at = f"at timestep {t} of {len(a)} it is {float(alphas_cumprod[t]):g}"
        if 0 <= a[t] < SMALLEST_ALPHA_CUMPROD:
            raise ValueError(f"alphas_cumprod must end where nothing is left of the data: {at}")
        raise ValueError(f"{wanted}, but {at}")
    return [float(s) for s in np.sqrt((1 - a) / a)]
