"""What the configuration of a diffusers scheduler says about the model: noise levels, prediction.

The betas are made by diffusers itself, in float32, since models were trained on those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdiff.counts import finite_number, real_number, whole_number
from kdiff.preconditioners import INFINITY, Precond, flow, precond
from kdiff.schedules.resolution import resolution_mu

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_DISCRETE = (  # the settings of `DDPMScheduler` that determine alphas_cumprod
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)
# Settings that give timesteps another meaning, and are not supported: ln(sigma) / 4 in Stable Video
# Diffusion, and other noise levels in CogVideoX.
_USUAL = {"timestep_type": "discrete", "snr_shift_scale": 1.0}
_MOST_TIMESTEPS = 100_000
# Where sigma is infinite, the variance-exploding frame needs something finite: 2^20 for betas of
# zero terminal SNR; for flows t = 1 - 1e-6, as in diffusers' multistep solvers. Both are near
# enough to infinity for five digits. Continuous grids, such as karras, start one timestep lower:
# from there they would waste their steps.
_STANDS_FOR_ZERO = 1 / INFINITY**2
FLOW_END = 1e-6


def precond_of(config: Mapping[str, Any], tokens: int | None = None) -> Precond:
    """The preconditioner of a network that was trained with this scheduler, on `tokens` tokens,
    where its shift depends on them.

    Betas: eps, v or x0 by `prediction_type`, on sigma_t = sqrt(1 / a_t - 1), a = alphas_cumprod; if
    the last one is 0 (`rescale_betas_zero_snr`), sigma ends at 2^20.
    Flow matching: the velocity at t, where sigma = shift t / (1 - t), t = 1 / T .. 1 - 1e-6.
    ValueError if it is neither.
    """
    given = config.get("num_train_timesteps", 1000)
    timesteps = whole_number("num_train_timesteps", given, 2, _MOST_TIMESTEPS)
    if is_flow(config):
        return _flow(config, timesteps, tokens)
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ValueError(
            f"{_name(config)} is not supported: it has neither betas nor the shift of flow matching"
        )
    for key, usual in _USUAL.items():
        if config.get(key, usual) != usual:
            raise ValueError(f"{_name(config)} with {key} {config[key]!r} is not supported")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction_type {prediction!r} is not supported: use one of {', '.join(PREDICTIONS)}"
        )
    alphas = _alphas_cumprod(config)
    if alphas[-1] == 0:
        alphas[-1] = min(_STANDS_FOR_ZERO, alphas[-2] / 4)
    return precond(PREDICTIONS[prediction], alphas_cumprod=alphas)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is flow matching, which has no betas (or, in some solvers, ignores them)."""
    flows = "shift" in config and "beta_schedule" not in config
    return flows or config.get("prediction_type") == "flow_prediction"


def shifts_by_size(config: Mapping[str, Any]) -> bool:
    """Whether the shift of a flow depends on the size of images."""
    return is_flow(config) and bool(config.get("use_dynamic_shifting"))


def mu_of(config: Mapping[str, Any], tokens: int) -> float:
    """mu of images of so many tokens: linear, from `base_shift` at `base_image_seq_len` to
    `max_shift` at `max_image_seq_len` (Esser et al. 2024, section 5.3.2; Flux)."""
    usual = {"base_shift": 0.5, "max_shift": 1.15}
    lengths = {"base_image_seq_len": 256, "max_image_seq_len": 4096}
    known = {**usual, **lengths}
    low, high, first, last = (finite_number(k, config.get(k, v)) for k, v in known.items())
    if first >= last:
        raise ValueError("base_image_seq_len must be below max_image_seq_len")
    return resolution_mu(tokens, low, high, first, last)


def dynamic_shift(config: Mapping[str, Any], mu: float | None) -> float:
    """The shift that `mu` stands for, 1 without any."""
    if mu is None:
        return 1.0
    mu = real_number("mu", mu)
    shift = mu if config.get("time_shift_type") == "linear" else math.exp(min(mu, 700))
    if not 0 < shift < 1e3:
        raise ValueError(f"mu gives a shift of {shift:g}: it must be above 0 and below 1000")
    return float(shift)


def describe(config: Mapping[str, Any]) -> dict[str, str]:
    """What `precond_of` found, and how diffusers would sample, for `Denoiser.facts`."""
    timesteps = config.get("num_train_timesteps", 1000)
    if is_flow(config):
        meaning = "flow: the velocity, in its scheduler's time"
        shift = "by the image's size" if shifts_by_size(config) else f"{_shift(config):g}"
        levels = f"{timesteps} timesteps, shift {shift}"
    else:
        kind = config.get("prediction_type", "epsilon")
        said = "prediction_type" in config
        origin = (
            f"from its prediction_type {kind}" if said else "assumed: it has no prediction_type"
        )
        meaning = f"{PREDICTIONS[kind]}, {origin}"
        given = config.get("trained_betas") is not None
        betas = "trained_betas" if given else f"{config.get('beta_schedule')} betas"
        levels = f"{timesteps} timesteps, {betas}"
        levels += ", rescaled to zero SNR" * bool(config.get("rescale_betas_zero_snr"))
        lacking = [] if given else [key for key in ("beta_start", "beta_end") if key not in config]
        if lacking and config.get("beta_schedule") != "squaredcos_cap_v2":
            levels += f", {' and '.join(lacking)} assumed: DDPM's"
    habits = ("timestep_spacing", "steps_offset", "set_alpha_to_one", "clip_sample", "thresholding")
    used = ", ".join(f"{key} {config[key]}" for key in habits if key in config)
    return {
        "parameterisation": meaning,
        "noise schedule": levels,
        "diffusers' own sampling": f"{_name(config)}" + (f" ({used})" if used else ""),
    }


def ddpm_of(config: Mapping[str, Any]) -> Any:
    """diffusers' own scheduler of these betas. ValueError if they cannot be made."""
    from diffusers import DDPMScheduler

    known = {key: config[key] for key in _DISCRETE if key in config}
    try:
        return DDPMScheduler(**known)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the betas of {_name(config)} cannot be made: {error}") from error


def _flow(config: Mapping[str, Any], timesteps: int, tokens: int | None) -> Precond:
    times = [i / timesteps for i in range(1, timesteps)] + [1 - FLOW_END]
    shift = _shift(config, tokens)
    table = tuple(shift * t / (1 - t) for t in times)
    made = flow(timesteps, data_at=int(bool(config.get("invert_sigmas"))))
    first, last = table[0], table[-1]
    return replace(
        made, sigma_min=first, sigma_max=table[-2], sigma_end=last, sigmas=table, config=None
    )


def _shift(config: Mapping[str, Any], tokens: int | None = None) -> float:
    if shifts_by_size(config):
        if tokens is None:
            raise ValueError(
                "use_dynamic_shifting, a shift that depends on the size, is not supported for this "
                "network"
            )
        return dynamic_shift(config, mu_of(config, tokens))
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if not isinstance(shift, (int, float)) or not 0 < shift < 1e3:
        raise ValueError(f"shift must be a number above 0, not {shift!r}")
    return float(shift)


def _alphas_cumprod(config: Mapping[str, Any]) -> list[float]:
    return ddpm_of(config).alphas_cumprod.double().tolist()


def _name(config: Mapping[str, Any]) -> str:
    return str(config.get("_class_name", "the scheduler"))
