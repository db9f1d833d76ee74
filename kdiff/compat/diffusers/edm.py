"""EDM's schedulers: they have the noise levels themselves, and neither betas nor a flow's shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from kdiff.preconditioners import Precond, edm

KEYS = {"sigma_data", "sigma_schedule", "rho"}
SCHEDULES = ("karras", "exponential")


def is_edm(config: Mapping[str, Any]) -> bool:
    """Whether it is of EDMEulerScheduler, EDMDPMSolverMultistepScheduler or
    CosineDPMSolverMultistepScheduler."""
    return "sigma_schedule" in config and "beta_schedule" not in config


def edm_of(config: Mapping[str, Any]) -> Precond:
    """EDM's preconditioner, c_noise = ln(sigma) / 4; with v_prediction, that of Stable Audio, whose
    c_out has the other sign; CosineDPMSolverMultistepScheduler tells the network 2 arctan(sigma) /
    pi. ValueError if the configuration makes no sense."""
    if config["sigma_schedule"] not in SCHEDULES:
        raise ValueError(f"sigma_schedule must be one of {', '.join(SCHEDULES)}")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type {prediction!r} is not supported with sigma_schedule")
    known = ("sigma_data", "sigma_min", "sigma_max")
    made = edm(**{key: config[key] for key in known if config.get(key) is not None})
    row = made.row if prediction == "epsilon" else partial(_negated, made)
    return replace(made, row=row, clock=_angle if _is_cosine(config) else made.clock, config=None)


def edm_schedule(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of its schedule, and that one's settings."""
    name = config["sigma_schedule"]
    return name, {"rho": config["rho"]} if name == "karras" and "rho" in config else {}


def edm_level(config: Mapping[str, Any], time: float) -> float:
    """The sigma at which the network is told `time`."""
    return math.tan(math.pi / 2 * time) if _is_cosine(config) else math.exp(4 * time)


def _is_cosine(config: Mapping[str, Any]) -> bool:
    return "solver_order" in config and "algorithm_type" not in config


def _negated(found: Precond, sigma: float) -> tuple[float, float, float]:
    c_skip, c_out, c_in = found.row(sigma)
    return c_skip, -c_out, c_in


def _angle(sigma: float) -> float:
    return 2 / math.pi * math.atan(sigma)
