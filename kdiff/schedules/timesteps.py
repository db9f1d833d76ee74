"""Schedules for models with a table of timesteps: functions of (n, steps), which give `n` of the
timesteps 0 .. steps - 1. Those between two are interpolated in ln sigma."""

from __future__ import annotations

import numpy as np

from kdiff.schedules.beta_quantiles import beta_quantiles
from kdiff.schedules.registry import registered
from kdiff.schedules.spreading import separated


@registered(aliases=("normal", "uniform"), ends="sigma_min")
def linspace(n: int, steps: int) -> np.ndarray:
    """Timesteps from the last to the first, evenly, unrounded: DDPM's grid."""
    return np.linspace(steps - 1, 0, n)


@registered(presets={"ddim_uniform": {"steps_offset": 1}, "DDIM": {"steps_offset": 1}})
def leading(n: int, steps: int, steps_offset: int = 0) -> np.ndarray:
    """Every (steps // n)-th timestep from `steps_offset` up: DDIM's and PLMS's own grid."""
    return np.arange(n)[::-1] * (steps // n) + float(steps_offset)


@registered()
def trailing(n: int, steps: int) -> np.ndarray:
    """Evenly down from the last timestep, not to the first (Lin et al. 2023, table 2)."""
    return np.round(np.arange(steps, 0, -steps / n))[:n] - 1.0


@registered()
def even(n: int, steps: int) -> np.ndarray:
    """As trailing, but not rounded to whole timesteps: the grid of Flux's pipeline."""
    return np.arange(n, 0, -1) * (steps / n) - 1.0


@registered()
def sgm_uniform(n: int, steps: int) -> np.ndarray:
    """n + 1 even points from the last timestep to the first, without that one (Stability AI's
    generative-models; ComfyUI, A1111)."""
    return np.linspace(steps - 1, 0, n + 1)[:-1]


@registered()
def simple(n: int, steps: int) -> np.ndarray:
    """Whole timesteps, evenly down from the last: steps - 1 - floor(i steps / n) (ComfyUI)."""
    return steps - 1.0 - np.floor(np.arange(n) * (steps / n))


@registered(ends="sigma_min")
def quadratic(n: int, steps: int) -> np.ndarray:
    """The square root of the timestep is linear: dense at the first (Song et al. 2021, DDIM,
    appendix D.2; from the last timestep, where their code begins at 0.8 of them)."""
    return np.linspace((steps - 1) ** 0.5, 0, n) ** 2


@registered(presets={"beta57": {"alpha": 0.5, "beta": 0.7}})
def beta_timesteps(n: int, steps: int, alpha: float = 0.6, beta: float = 0.6) -> np.ndarray:
    """Even quantiles of the timestep ~ Beta(alpha, beta), to the nearest whole ones (Lee et al.
    2024; ComfyUI's beta). Points of one timestep are spread, where ComfyUI makes fewer steps."""
    t = np.rint(beta_quantiles(np.linspace(1, 0, n + 1), alpha, beta) * (steps - 1))
    return separated(t)[:-1]
