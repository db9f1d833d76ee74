"""The noise level over time of the VP SDE (Song et al. 2021; Karras et al. 2022, table 1):
ln(1 + sigma^2) = beta_d t^2 / 2 + beta_min t. On floats and numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

BETA_D, BETA_MIN = 19.9, 0.1


def vp_sigma(t: Any, beta_d: float = BETA_D, beta_min: float = BETA_MIN) -> Any:
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), t in [0, 1]."""
    return np.sqrt(np.expm1(beta_d * t * t / 2 + beta_min * t))


def vp_time(sigma: Any, beta_d: float = BETA_D, beta_min: float = BETA_MIN) -> Any:
    """The inverse of `vp_sigma`: the t whose noise level is sigma >= 0."""
    half = np.log1p(sigma * sigma)
    # (sqrt(beta_min^2 + 2 beta_d half) - beta_min) / beta_d without its cancellation at small t
    return 2 * half / (np.sqrt(beta_min**2 + 2 * beta_d * half) + beta_min)
