"""Rows and clocks: the coefficients of parameterisations as functions of sigma.

A row gives c_skip, c_out, c_in, a clock c_noise. Each has a name, or is a partial of one that has,
because a lambda cannot be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kdiff.samplers.vp import BETA_D, BETA_MIN, vp_time

Row = Callable[[float], tuple[float, float, float]]
Clock = Callable[[float], float]


def alpha_vp(sigma: float) -> float:
    """The variance-preserving scale of a sample at noise level sigma: alpha^2 (1 + sigma^2) = 1."""
    return 1 / math.sqrt(1 + sigma * sigma)


def edm_row(sigma: float, sigma_data: float = 0.5) -> tuple[float, float, float]:
    total = math.hypot(sigma, sigma_data)
    return (sigma_data / total) ** 2, sigma * sigma_data / total, 1 / total


def consistency_row(
    sigma: float, sigma_data: float = 0.5, sigma_min: float = 0.002
) -> tuple[float, float, float]:
    above, total = sigma - sigma_min, math.hypot(sigma, sigma_data)
    return (sigma_data / math.hypot(above, sigma_data)) ** 2, sigma_data * above / total, 1 / total


def ve_row(s: float) -> tuple[float, float, float]:
    return 1.0, s, 1.0


def eps_row(s: float) -> tuple[float, float, float]:
    return 1.0, -s, alpha_vp(s)


def v_row(s: float) -> tuple[float, float, float]:
    return alpha_vp(s) ** 2, -s * alpha_vp(s), alpha_vp(s)


def x0_row(s: float) -> tuple[float, float, float]:
    return 0.0, 1.0, alpha_vp(s)


def flow_row(s: float) -> tuple[float, float, float]:
    return 1 / (1 + s), -s / (1 + s), 1 / (1 + s)


def flow_to_data_row(s: float) -> tuple[float, float, float]:
    return 1 / (1 + s), s / (1 + s), 1 / (1 + s)


def denoised_row(s: float) -> tuple[float, float, float]:
    return 0.0, 1.0, 1.0


def _inverse_alpha(sigma: float) -> float:
    return (sigma + math.hypot(sigma, 2)) / 2


def sub_vp_row(sigma: float) -> tuple[float, float, float]:
    return 1.0, -sigma, 1 / _inverse_alpha(sigma)


def sub_vp_clock(sigma: float) -> float:
    vp_sigma_squared = sigma * _inverse_alpha(sigma)
    return float(999 * vp_time(math.sqrt(vp_sigma_squared), BETA_D, BETA_MIN))


ROWS: dict[str, Row] = {
    "edm": edm_row,
    "ve": ve_row,
    "eps": eps_row,
    "v": v_row,
    "x0": x0_row,
    "flow": flow_row,
    "denoised": denoised_row,
}


def edm_clock(sigma: float) -> float:
    return math.log(sigma) / 4


def consistency_clock(sigma: float) -> float:
    return 250 * math.log(sigma)


def ve_clock(sigma: float) -> float:
    return math.log(sigma / 2)


def vp_clock(sigma: float, steps: int, beta_d: float, beta_min: float) -> float:
    return float((steps - 1) * vp_time(sigma, beta_d, beta_min))


def flow_clock(sigma: float, time_scale: float) -> float:
    return time_scale * sigma / (1 + sigma)


def flow_to_data_clock(sigma: float, time_scale: float) -> float:
    return time_scale / (1 + sigma)


def denoised_clock(sigma: float) -> float:
    return sigma


def discrete_clock(sigmas: Sequence[float], round: bool = False) -> Clock:
    """The timestep t in [0, T-1] of a sigma: linear in log sigma between the two neighbouring
    steps, clamped at both ends; `round` gives the nearest step in sigma instead."""
    table = np.asarray(sigmas, dtype=np.float64)
    if round:
        return partial(_nearest_step, table=table)
    steps = np.arange(len(table), dtype=np.float64)
    return partial(_step_between, log_table=np.log(table), steps=steps)


def _nearest_step(sigma: float, table: np.ndarray) -> float:
    return float(np.abs(table - sigma).argmin())


def _step_between(sigma: float, log_table: np.ndarray, steps: np.ndarray) -> float:
    return float(np.interp(math.log(sigma), log_table, steps)) if sigma > 0 else 0.0
