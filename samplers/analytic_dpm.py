"""Analytic-DPM: the ancestral step whose variance is the best one for what is known of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from kdiff.samplers.loops import ETA, S_NOISE, ancestral_split
from kdiff.samplers.registry import Coroutine, Noise, Option, sampler
from kdiff.samplers.steps import euler_step

GAMMAS = Option(
    "[[sigma, gamma], ..] in JSON, gamma the mean square of the noise prediction there; nothing: "
    "those of Gaussian data, sigma^2 / (sigma^2 + sigma_data^2)"
)


def table(text: str) -> np.ndarray | None:
    """ln sigma and gamma, rising in sigma; None if there is none. ValueError if it is not one."""
    if not text:
        return None
    try:
        rows = np.array(sorted(json.loads(text)), dtype=np.float64)
        if rows.ndim == 2 and rows.shape[1] == 2 and (rows[:, 0] > 0).all():
            return np.stack([np.log(rows[:, 0]), rows[:, 1]])
    except (ValueError, TypeError):
        pass
    raise ValueError(f"gammas must be [[sigma, gamma], ..] in JSON, not {text!r:.80}")


@sampler(
    "analytic_dpm",
    order=1,
    strong=1,
    weak=1,
    paper="Bao et al. 2022 (Analytic-DPM), theorem 1 and corollary 1",
    noise="white",
    ode=None,
)
def analytic_dpm(
    x: Any,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: Annotated[float, ETA] = 1.0,
    gammas: Annotated[str, GAMMAS] = "",
    sigma_data: Annotated[float, Option("spread of the data, if no gammas are given", 0)] = 0.5,
    most: Annotated[float, Option("half the data's range: bounds their spread", 0)] = 1.0,
    s_noise: Annotated[float, S_NOISE] = 1.0,
) -> Coroutine:
    """x_t = D + sigma_down (x_s - D) / s + sqrt(sigma_up^2 + (1 - sigma_down / s)^2 c) n, with the
    spread of the data that x_s leaves open, c = s^2 (1 - gamma(s)), from 0 to `most`^2. On Gaussian
    data every step is exact. Between the sigmas given, gamma is linear in ln sigma."""
    known = table(gammas)
    for s, t in pairwise(sigmas):
        d = yield x, s
        if t == 0:
            return d
        if known is None:
            spread = sigma_data / math.hypot(1, sigma_data / s)
        else:
            gamma = float(np.interp(math.log(s), *known))
            spread = s * math.sqrt(max(0.0, 1 - gamma))
        down, up = ancestral_split(s, t, eta)
        total = math.hypot(up, (1 - down / s) * min(spread, most))
        x = euler_step(x, d, s, down) + s_noise * total * noise(s, t)
    return x
