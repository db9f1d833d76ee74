"""The scheduler itself: what pipelines call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from diffusers.utils.logging import get_logger
from torch import Tensor

from kdiff.compat.diffusers.config import CHANGEABLE, OWN, check
from kdiff.compat.diffusers.grids import evaluation_levels, make_grid, no_noise, replaced
from kdiff.compat.diffusers.levels import NoiseLevels
from kdiff.compat.diffusers.samples import Generators, draw_seeds, limited
from kdiff.noise import Noise
from kdiff.plans import DEFAULT_SAMPLER, Plan
from kdiff.samplers import resolve
from kdiff.samplers.registry import Coroutine, Final

LOG = get_logger(__name__)


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
    matching). `sampler`, `schedule`, `final`, `options` and `settings` (rho, sigma_max ..) are
    those of `kdiff.plan`. Without a schedule, the configuration's choice of sigmas (karras,
    exponential, beta) counts, and for flows its shifts; else it is karras, as in `kdiff.plan`.
    `clip=True` follows its clip_sample.

    Samples are scaled as the network sees them, c_in(sigma) x, so `scale_model_input` changes
    nothing; the last one is the result itself. Noise comes from `seeds`, one for each sample; else
    from seeds that the generator given to `step` draws; else from the bits of the start. No global
    generator is touched. Churn's noise before the first evaluation is left out: the start then
    counts as being at that higher noise level already.
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
    ):
        self.order = resolve(sampler).sampler.calls
        self.num_inference_steps: int | None = None
        self._plan: Plan | None = None
        self._levels: list[float] = []
        self._times: list[float] = []
        self._begin_index: int | None = None
        self._step_index: int | None = None
        self._asks: Coroutine | None = None
        self._ask: tuple[Tensor, float]
        self._dtype: torch.dtype

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **chosen: Any
    ) -> Any:
        """The scheduler for a model with that `config`, of a scheduler, or that scheduler itself;
        `chosen` are `sampler`, `schedule`, `final`, `options`, `seeds`, `clip`, what else
        `kdiff.plan` takes (rho, sigma_max ..), and changes to the configuration (shift=5 ..).

        ValueError if the configuration says what kdiff cannot follow; a line in diffusers' log
        names what is left out.
        """
        own = {key: chosen.pop(key) for key in OWN if key in chosen}
        changes = {key: chosen.pop(key) for key in CHANGEABLE if key in chosen}
        if chosen:
            own["settings"] = chosen
        if hasattr(config, "config"):  # a scheduler itself
            config = {"_class_name": type(config).__name__, **config.config}
        if isinstance(config, Mapping):  # diffusers would drop what was left at its class's default
            config = {k: v for k, v in config.items() if k != "_use_default_values"} | changes
            for line in check(config | own):
                LOG.warning(line)
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
            LOG.warning(f"{', '.join(left)} left out: timesteps or sigmas are given")
        self._plan, told = make_grid(self.config, num_inference_steps, timesteps, sigmas, mu)
        self.num_inference_steps = self._plan.steps
        self._levels = evaluation_levels(self._plan)
        self._times = [told.get(s, self.precond(s).c_noise) for s in self._levels]
        self.timesteps = torch.tensor(self._times, dtype=torch.float32, device=device)
        self.sigmas = self._shown([*self._levels, self._plan.sigmas[-1]])
        self._begin_index, self._step_index, self._asks = None, None, None

    @property
    def plan(self) -> Plan:
        """Sampler, options and grid. ValueError before `set_timesteps`."""
        if self._plan is None:
            raise ValueError("call set_timesteps first")
        return self._plan

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
        if self._asks is None:
            self._start(timestep, sample, generator)
        else:
            self._follow(sample)
        x, sigma = self._ask
        c = self.precond(sigma)
        output = model_output[:, : x.shape[1]].to(x.dtype)  # beyond: a learned variance
        if output.shape != x.shape:
            raise ValueError(f"the network said {tuple(output.shape)} of a {tuple(x.shape)} sample")
        denoised = limited(self.config, c.c_skip * x + c.c_out * output)
        self._dtype = sample.dtype
        self._step_index = (self._step_index or 0) + 1
        following = self._answer(denoised).to(sample.dtype)
        if not return_dict:
            return following, denoised.to(sample.dtype)
        return KDiffSchedulerOutput(following, denoised.to(sample.dtype))

    def _answer(self, denoised: Tensor | None) -> Tensor:
        """Go on to the next ask, and return what the network is to see for it; or the result."""
        assert self._asks is not None
        try:
            self._ask = self._asks.send(denoised)
        except StopIteration as stop:
            self._asks = None
            return stop.value
        x, sigma = self._ask
        return self.precond(sigma).c_in * x

    def _follow(self, sample: Tensor) -> None:
        """Take over what was changed in the sample since the last step: the tensor that the sampler
        asks about is its state, which it goes on from."""
        x, sigma = self._ask
        if sample.shape != x.shape:
            raise ValueError(
                f"the sample was {tuple(x.shape)} in the last step, and is {tuple(sample.shape)}"
            )
        c_in = self.precond(sigma).c_in
        returned = (c_in * x).to(self._dtype).to(sample.dtype)
        with torch.no_grad():
            x.copy_(torch.where(sample == returned, x, sample.to(x.dtype) / c_in))

    def _start(self, timestep: Any, sample: Tensor, generator: Generators) -> None:
        plan = self.plan
        calls = plan.sampler.calls_per_step(plan.steps, plan.final)
        starts = [0, *accumulate(calls[:-1])]
        first = self._begin_index
        first = self._nearest(timestep, starts) if first is None else first
        sigmas = plan.sigmas[starts.index(first) :] if first in starts else ()
        rest = Plan(plan.sampler, plan.options, sigmas, plan.schedule)
        if not sigmas or evaluation_levels(rest) != self._levels[first:]:
            raise ValueError(f"{plan.sampler.name} cannot begin at evaluation {first}")
        level = self._levels[first]
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        x = x / self.precond(level).c_in
        source = self._noise(x, generator) if plan.sampler.stochastic(plan.options) else no_noise
        if level != sigmas[0]:
            source = _skipping_first(source)
        self._asks = plan.sampler.start(x, sigmas, source, plan.options)
        self._step_index = first
        self._answer(None)

    def _noise(self, x: Tensor, generator: Generators) -> Any:
        kind = self.plan.sampler.noise
        seeds = self.config["seeds"] or draw_seeds(x, generator)
        if len(seeds) != len(x):
            raise ValueError(f"{len(seeds)} seeds for {len(x)} samples")
        return getattr(Noise(seeds, x.shape[1:], x.dtype, x.device), str(kind))

    def _nearest(self, timestep: Any, among: Sequence[int]) -> int:
        each = set(torch.as_tensor(timestep).reshape(-1).tolist())  # one, or one for each sample
        if len(each) != 1:
            raise ValueError("all samples must be at one timestep")
        timestep = each.pop()
        found = min(among, key=lambda i: abs(self._times[i] - timestep), default=None)
        if found is None or abs(self._times[found] - timestep) > 1e-3 * max(1.0, timestep):
            raise ValueError(f"{timestep:g} is not one of the scheduler's timesteps")
        return found


def _skipping_first(source: Any) -> Any:
    """`source`, but nothing at the first call."""
    calls = iter([no_noise])
    return lambda s, t: next(calls, source)(s, t)
