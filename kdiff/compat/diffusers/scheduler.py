"""The scheduler itself: what pipelines call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from diffusers.utils.logging import get_logger
from torch import Tensor

from kdiff.compat.diffusers.config import CHANGEABLE, OWN, as_texts, check
from kdiff.compat.diffusers.evaluations import (
    LiveTimesteps,
    beginnings,
    calls_in_step,
    evaluation_levels,
)
from kdiff.compat.diffusers.grids import make_grid, replaced
from kdiff.compat.diffusers.levels import NoiseLevels
from kdiff.compat.diffusers.run import Run
from kdiff.compat.diffusers.samples import Generators, draw_seeds, limited
from kdiff.driver import TooManyEvaluations
from kdiff.editing import EDITS
from kdiff.modifications import chosen as chosen_modification
from kdiff.noise import Noise
from kdiff.plans import DEFAULT_SAMPLER, Plan
from kdiff.samplers import resolve
from kdiff.samplers.contract import Ask
from kdiff.samplers.registry import Final

_LOG = get_logger(__name__)


@dataclass
class KDiffSchedulerOutput(BaseOutput):
    """`prev_sample`: what the network is to see next, or the result; `pred_original_sample`: the
    denoised."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class KDiffScheduler(NoiseLevels):
    """A diffusers scheduler that runs any sampler of kdiff on any of its grids.

    Made by `from_config` from the configuration of the pipeline's own scheduler, which says what
    the network predicts at which noise levels (betas with epsilon, v_prediction or sample, or flow
    matching). `sampler`, `schedule`, `final`, `options`, `edits` and `settings` (rho, sigma_max
    ..) are arguments of `kdiff.plan`. Without a schedule, the configuration's choice of sigmas
    (karras, exponential, beta) counts, and for flows its shifts; else it is karras, as in
    `kdiff.plan`. `clip=True` follows its clip_sample.

    Samples are scaled as the network sees them, c_in(sigma) x, so `scale_model_input` changes
    nothing; the last one is the result itself. Noise comes from `seeds`, one for each sample; else
    from seeds that the generator given to `step` draws; else from the bits of the start. No global
    generator is touched. Noise before the first evaluation (churn's) is left out: the start counts
    as being at that higher noise level already. An adaptive sampler writes `timesteps` as it goes,
    and a loop over them ends with it.
    """

    _compatibles = [*(e.name for e in KarrasDiffusionSchedulers), "FlowMatchEulerDiscreteScheduler"]  # noqa: RUF012
    order = 1

    @register_to_config
    def __init__(
        self,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str | None = None,
        final: Final | None = None,
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
        clip: bool = False,
        num_train_timesteps: int = 1000,
        edits: Sequence[str] = (),
    ):
        self.order = resolve(sampler).sampler.calls
        for edit in edits:
            chosen_modification(EDITS, edit)
        self.num_inference_steps: int | None = None
        self._plan: Plan | None = None
        self._levels: list[float] = []
        self._times: list[float] = []
        self._begin_index: int | None = None
        self._step_index: int | None = None
        self._told: Mapping[float, float] = {}
        self._run: Run | None = None

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **chosen: Any
    ) -> Any:
        """The scheduler for a model with that `config`, of a scheduler, or that scheduler itself;
        `chosen` are `sampler`, `schedule`, `final`, `options`, `edits`, `seeds`, `clip`,
        other arguments of `kdiff.plan` (rho, sigma_max ..), and changes to the configuration
        (shift=5 ..).

        ValueError if the configuration says what kdiff cannot follow; a line in diffusers' log
        names what is left out.
        """
        own = {key: chosen.pop(key) for key in OWN if key in chosen}
        if "edits" in own:
            own["edits"] = as_texts(own["edits"])
        changes = {key: chosen.pop(key) for key in CHANGEABLE if key in chosen}
        if chosen:
            own["settings"] = chosen
        if hasattr(config, "config"):  # a scheduler itself
            config = {"_class_name": type(config).__name__, **config.config}
        if isinstance(config, Mapping):  # diffusers would drop what was left at its class's default
            config = {k: v for k, v in config.items() if k != "_use_default_values"} | changes
            for line in check(config | own):
                _LOG.warning(line)
        return super().from_config(config, return_unused_kwargs, **own)

    # --- the grid --------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the grid: of `num_inference_steps` steps (default 20), or through the `timesteps` or
        `sigmas` given, whatever the schedule is. `timesteps` then has as many entries as the
        sampler makes evaluations, and `sigmas` one more, where the grid ends.

        `sigmas` are noise levels with the last one, if the network has betas; for a flow they are
        times in (0, 1] before the shift, and 0 is added. `mu` sets the shift of a flow whose shift
        depends on the size. ValueError as in `kdiff.plan`.
        """
        left = replaced(self.config)
        if left and (timesteps is not None or sigmas is not None):
            _LOG.warning(f"{', '.join(left)} left out: timesteps or sigmas are given")
        self._plan, self._told = make_grid(self.config, num_inference_steps, timesteps, sigmas, mu)
        self.num_inference_steps, self.order = self._plan.steps, calls_in_step(self._plan)
        self._levels = evaluation_levels(self._plan)
        self._times = [self._time(s) for s in self._levels]
        self.timesteps = torch.tensor(self._times, dtype=torch.float32, device=device)
        if self._adaptive:
            self.timesteps = self.timesteps.as_subclass(LiveTimesteps)
        self.sigmas = self._shown([*self._levels, self._plan.sigmas[-1]])
        self._begin_index, self._step_index, self._run = None, None, None

    @property
    def plan(self) -> Plan:
        """Sampler, options and grid. ValueError before `set_timesteps`."""
        if self._plan is None:
            raise ValueError("call set_timesteps first")
        return self._plan

    @property
    def _adaptive(self) -> bool:
        return self.plan.levels is None

    def _time(self, sigma: float) -> float:
        return self._told.get(sigma, self.precond(sigma).c_noise)

    @property
    def init_noise_sigma(self) -> Tensor:
        """By which standard normal noise is multiplied to start from: c_in(sigma) sigma."""
        first = self._levels[0] if self._levels else None
        return torch.tensor(self.precond(first).c_in * first if first else 1.0)

    @property
    def step_index(self) -> int | None:
        """The evaluation that comes next; None before the first one."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """What `set_begin_index` was told."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at that entry of `timesteps`, which must be the first one of a step."""
        self._begin_index = begin_index

    def index_for_timestep(
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """Where that timestep is in `timesteps`: the second of two, which begins a step.
        ValueError if it is not there."""
        known = self.timesteps if schedule_timesteps is None else schedule_timesteps
        found = torch.nonzero(known == float(timestep)).flatten().tolist()
        if not found:
            raise ValueError(f"{float(timestep):g} is not one of the scheduler's timesteps")
        return int(found[:2][-1])

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself, which is scaled already."""
        return sample

    # --- sampling --------------------------------------------------------------------------------

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Generators = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        return_dict: bool = True,
    ) -> KDiffSchedulerOutput | tuple[Tensor, Tensor]:
        """Answer the sampler's ask with what the network said of `sample`, and return its next one.

        Where `sample` is not what the last step returned, as in inpainting, the sampler goes on
        from the changed values; the history that it keeps stays. ValueError if the shape is
        another one. `eta` and clipping are not options of this method.
        """
        if eta or use_clipped_model_output:
            raise ValueError("eta is an option of the sampler: KDiffScheduler(options={'eta': ..})")
        following = denoised = sample
        if not (self._adaptive and torch.as_tensor(timestep).isnan().any()):  # NaN is past the end
            following, denoised = self._step(model_output, timestep, sample, generator)
        if not return_dict:
            return following, denoised
        return KDiffSchedulerOutput(following, denoised)

    def _step(self, output: Tensor, timestep: Any, sample: Tensor, generator: Generators) -> Any:
        run = self._run
        if run is None:
            run = self._run = self._begin(timestep, sample, generator)
        else:
            if self._adaptive:
                self._nearest(timestep, [self._step_index or 0])
            run.follow(sample)
        following = run.answer(output, sample.dtype)
        self._go_on(run.ask)
        return following, run.denoised.to(sample.dtype)

    def _go_on(self, ask: Ask | None) -> None:
        """Count the evaluation, and write where `ask`, the next one, is, if only now it is known.
        TooManyEvaluations if an adaptive sampler has none left, RuntimeError if another one does
        not ask what it declares."""
        self._step_index = i = (self._step_index or 0) + 1
        if ask is None:
            self._run = None
        if self._adaptive:
            self._write(i, ask)
        elif self._levels[i : i + 1] != ([] if ask is None else [ask.sigma]):
            what = f"asks at sigma = {ask.sigma:g}" if ask else f"ends after {i} evaluations"
            raise RuntimeError(f"{self.plan.sampler.name} {what}, which is not as it declares")

    def _write(self, i: int, ask: Ask | None) -> None:
        if ask is None:
            self.timesteps[i:], self.sigmas[i:] = math.nan, self.sigmas[-1].item()
            return
        if i == len(self._levels):
            raise TooManyEvaluations(
                f"{self.plan.sampler.name} has not ended after {i} evaluations of the batch, at "
                f"sigma = {ask.sigma:g}: allow it more, or larger errors, or use smaller batches"
            )
        self._levels[i], self._times[i] = ask.sigma, self._time(ask.sigma)
        self.timesteps[i], self.sigmas[i] = self._times[i], self._shown([ask.sigma]).item()

    def _begin(self, timestep: Any, sample: Tensor, generator: Generators) -> Run:
        plan, steps = self.plan, beginnings(self.plan)
        first = self._begin_index
        first = self._nearest(timestep, list(steps)) if first is None else first
        rest = replace(plan, sigmas=plan.sigmas[steps.get(first, 0) :])
        as_known = rest.levels is None or list(rest.levels) == self._levels[first:]
        if first not in steps or not as_known:
            raise ValueError(f"{plan.sampler.name} cannot begin at evaluation {first}")
        level = self._levels[first]
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        x = x / self.precond(level).c_in
        noisy = plan.edits or plan.sampler.stochastic(plan.options)
        noise = self._noise(x, generator) if noisy else None
        run = Run(rest, x, level, noise, self.precond, partial(limited, self.config))
        self._step_index = first
        return run

    def _noise(self, x: Tensor, generator: Generators) -> Noise:
        seeds = self.config["seeds"] or draw_seeds(x, generator)
        if len(seeds) != len(x):
            raise ValueError(f"{len(seeds)} seeds for {len(x)} samples")
        return Noise(seeds, x.shape[1:], x.dtype, x.device)

    def _nearest(self, timestep: Any, among: Sequence[int]) -> int:
        each = set(torch.as_tensor(timestep).reshape(-1).tolist())  # one, or one for each sample
        if len(each) != 1:
            raise ValueError("all samples must be at one timestep")
        timestep = each.pop()
        found = min(among, key=lambda i: abs(self._times[i] - timestep), default=None)
        if found is None or abs(self._times[found] - timestep) > 1e-3 * max(1.0, timestep):
            live = ", which are written as the sampler goes: do not copy them" * self._adaptive
            raise ValueError(f"{timestep:g} is not one of the scheduler's timesteps{live}")
        return found
