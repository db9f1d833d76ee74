"""What a network's noise levels are, and noise at them: the part of a scheduler that needs no
grid."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from kdiff.checkpoints.diffusers_scheduler import ddpm_of, is_flow
from kdiff.compat.diffusers.config import precond_for, training_times
from kdiff.compat.diffusers.edm import edm_schedule, is_edm
from kdiff.compat.diffusers.grids import flow_share, level_at
from kdiff.compat.diffusers.samples import noised, velocity
from kdiff.plans import Plan
from kdiff.preconditioners import Precond
from kdiff.schedules import schedule

Times = float | Sequence[float] | Tensor


class NoiseLevels(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusers scheduler before `set_timesteps`, as training scripts use it."""

    _plan: Plan | None
    _levels: list[float]
    _times: list[float]
    _begin_index: int | None
    _step_index: int | None

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(type(self), name, None)
        if isinstance(found, property | cached_property):  # its own error led here: show that one
            return found.__get__(self)
        return super().__getattr__(name)

    def __len__(self) -> int:
        return training_times(self.config)

    @cached_property
    def precond(self) -> Precond:
        """What the network's output means."""
        return precond_for(self.config)

    @cached_property
    def betas(self) -> Tensor:
        """The beta of each timestep that the network was trained on. AttributeError for flows and
        EDM."""
        return self._ddpm.betas

    @cached_property
    def alphas(self) -> Tensor:
        """1 - betas."""
        return self._ddpm.alphas

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """The products of alphas up to each timestep."""
        return self._ddpm.alphas_cumprod

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """The alpha_cumprod of the result: 1, or timestep 0's if the grid ends there."""
        ends_there = self._plan is not None and self._plan.final == "sigma_min"
        return self.alphas_cumprod[0] if ends_there else torch.tensor(1.0)

    @cached_property
    def _ddpm(self) -> Any:
        if is_flow(self.config) or is_edm(self.config):
            kind = "a flow" if is_flow(self.config) else "EDM"
            raise AttributeError(f"{kind} has no betas and no alphas")
        return ddpm_of(self.config)

    @cached_property
    def timesteps(self) -> Tensor:
        """What the network is told at each evaluation; all that it was trained on, before
        `set_timesteps`."""
        if is_flow(self.config):
            return self.sigmas[:-1] * training_times(self.config)
        if is_edm(self.config):
            return torch.tensor([self.precond(s).c_noise for s in self.sigmas[:-1].tolist()])
        return torch.arange(training_times(self.config) - 1, -1, -1.0)

    @cached_property
    def sigmas(self) -> Tensor:
        """The noise level of each evaluation, on the CPU, and where the grid ends; for flows their
        time, 0 to 1. All that the network was trained on, before `set_timesteps`."""
        if is_edm(self.config):
            name, settings = edm_schedule(self.config)
            grid = schedule(name, training_times(self.config), self.precond, **settings)
            return torch.tensor(grid)
        return self._shown([*reversed(self.precond.sigmas or ()), 0.0])

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Times) -> Tensor:
        """c_in(sigma) (x + sigma n) at the sigma of `timesteps`: one, or one for each sample. Each
        is in `self.timesteps`, or within the range that the network was trained on. ValueError if
        not, or if the shapes do not fit."""
        return noised(self.precond, self._sigmas_at(timesteps), original_samples, noise)

    def scale_noise(self, sample: Tensor, timestep: Times, noise: Tensor | None = None) -> Tensor:
        """`add_noise`, as flow-matching pipelines call it."""
        if noise is None:
            raise ValueError("scale_noise needs noise")
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Times) -> Tensor:
        """The training target of a v-prediction network: alpha n - alpha sigma x. ValueError for
        flows, whose target is noise - sample."""
        if is_flow(self.config):
            raise ValueError("a flow's velocity is noise - sample at every timestep")
        if is_edm(self.config):
            raise ValueError("EDM's networks are trained on the sample: use precond")
        return velocity(self.precond, self._sigmas_at(timesteps), sample, noise)

    def _sigmas_at(self, timesteps: Times) -> list[float]:
        given = torch.as_tensor(timesteps).reshape(-1).tolist()
        at = self._begin_index or 0 if self._step_index is None else self._step_index
        return [self._sigma_at(t, at) for t in given]

    def _sigma_at(self, timestep: float, at: int) -> float:
        """The sigma of the grid's entry for the timestep; of several, of the nearest to `at`."""
        if math.isnan(timestep) and self._plan is not None and self._plan.levels is None:
            return self._plan.sigmas[-1]  # beyond the end of an adaptive sampler's
        same = [i for i, t in enumerate(self._times) if abs(t - timestep) <= 1e-6 * max(1.0, t)]
        if same:
            return self._levels[min(same, key=lambda i: abs(i - at))]
        return level_at(self.config, self.precond, timestep)

    def _shown(self, levels: Sequence[float]) -> Tensor:
        if is_flow(self.config):
            levels = [flow_share(self.config, s) for s in levels]
        return torch.tensor(levels)
