"""A scheduler's configuration, key by key: what is followed, replaced, refused, or unknown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kdiff.checkpoints.diffusers_scheduler import dynamic_shift, is_flow, precond_of
from kdiff.compat.diffusers.edm import KEYS, edm_of, is_edm
from kdiff.counts import real_number
from kdiff.modifications import Modification
from kdiff.preconditioners import Precond

# KDiffScheduler's own.
OWN = ("sampler", "schedule", "final", "options", "settings", "seeds", "clip", "edits")

SPACINGS = {  # the schedule that each stands for, where none is chosen
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_lu_lambdas": "exponential",
    "use_beta_sigmas": "beta",
}
FOLLOWED = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("rescale_betas_zero_snr", "prediction_type", "timestep_type", "snr_shift_scale"),
    *("shift", "flow_shift", "use_flow_sigmas", "use_dynamic_shifting", "time_shift_type"),
    *("shift_terminal", "invert_sigmas", *SPACINGS, "sigma_min", "sigma_max"),
    *("lambda_min_clipped", "steps_offset", "final_sigmas_type"),
    *("clip_sample", "clip_sample_range"),
    *("thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
}
CHANGEABLE = FOLLOWED - {"sigma_min", "sigma_max", "steps_offset"}  # arguments of `kdiff.plan`
_NUMBERS = (
    *("sigma_min", "sigma_max", "lambda_min_clipped", "shift_terminal", "steps_offset"),
    *("clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"),
)
# These say how the original scheduler samples, not what the network means.
REPLACED = {
    **dict.fromkeys(
        (
            *("algorithm_type", "solver_order", "solver_type", "solver_p", "predict_x0"),
            *("lower_order_final", "euler_at_final", "disable_corrector", "skip_prk_steps"),
            *("predictor_order", "corrector_order", "tau_func", "timestep_scaling"),
            *("variance_type", "stochastic_sampling", "eta", "s_noise"),
            *("s_churn", "s_min", "s_max", "noise_sampler_seed"),
        ),
        "sampler and options",
    ),
    **dict.fromkeys(
        ("timestep_spacing", "interpolation_type", "original_inference_steps", "set_alpha_to_one"),
        "schedule and final",
    ),
    **dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
        "mu, which pipelines compute from them",
    ),
}
# These belong to schedulers for other kinds of models: consistency, score SDE, tokens, staged and
# so on. Those of EDM are followed in the configurations of EDM's schedulers.
REFUSED = {
    *("sigma_data", "sigma_schedule", "rho", "clip_denoised", "snr", "sampling_eps"),
    *("beta_min", "beta_max", "correct_steps", "s", "scaler"),
    *("stages", "stage_range", "gamma", "scheduler_type"),
    *("scale_factors", "eps", "n_grid", "num_policy_substeps", "final_step_size_scale"),
    *("alpha_cum_start", "alpha_cum_end", "gamma_cum_start", "gamma_cum_end", "num_vec_classes"),
    *("mask_token_id", "masking_schedule", "block_length", "editing_threshold", "minimal_topk"),
    *("threshold", "num_inference_steps", "entropy_bound", "t_min", "t_max"),
    *("corrector_k", "corrector_selection", "corrector_selection_tau", "corrector_steps"),
    *("noise_mode", "schedule_mode", "t_lim_ode", "t_lim_ode_below"),
    *("tail_steps", "tail_step_multiplier", "tsr_k", "tsr_sigma"),
}
NEEDLESS = {"upscale_mode"}  # means nothing without scale_factors


def as_texts(edits: str | Modification | Iterable[str | Modification]) -> list[str]:
    """One edit or several, as a configuration can hold them."""
    if isinstance(edits, str | Modification):
        return [str(edits)]
    return [str(edit) for edit in edits]


def check(config: Mapping[str, Any]) -> list[str]:
    """Lines about what is left out. ValueError, in one line, for what would change the result."""
    name = str(config.get("_class_name", ""))
    if "Inverse" in name:
        raise ValueError(
            f"{name} is not supported: it goes from a picture to noise: use kdiff.invert"
        )
    if "FlowMap" in name:
        raise ValueError(f"{name} is not supported: its network takes two times")
    precond_for(config)
    for key in sorted((REFUSED - KEYS if is_edm(config) else REFUSED) & set(config)):
        if config[key] is not None:
            raise ValueError(f"{key} is not supported: it is of another kind of scheduler")
    for key in _NUMBERS:
        if config.get(key) is not None:
            real_number(key, config[key])
    spacings = [key for key in SPACINGS if config.get(key)]
    if len(spacings) > 1:
        raise ValueError(f"only one of {' and '.join(spacings)} can be followed")
    if config.get("use_flow_sigmas") and not is_flow(config):
        prediction = config.get("prediction_type", "epsilon")
        raise ValueError(f"use_flow_sigmas with prediction_type {prediction!r} is not supported")
    if config.get("time_shift_type", "exponential") not in ("exponential", "linear"):
        raise ValueError("time_shift_type must be exponential or linear")
    if config.get("final_sigmas_type", "zero") not in ("zero", "sigma_min"):
        raise ValueError("final_sigmas_type must be zero or sigma_min")
    left = []
    known = {*OWN, *FOLLOWED, *REPLACED, *REFUSED, *NEEDLESS}
    if unknown := [key for key in config if key not in known and not key.startswith("_")]:
        left.append(f"unknown to KDiffScheduler, and left out: {', '.join(sorted(unknown))}")
    if config.get("clip_sample") and not config.get("clip") and not is_flow(config):
        left.append("clip_sample is left out: kdiff clips only if told to, by clip=True")
    return left


def precond_for(config: Mapping[str, Any], mu: float | None = None) -> Precond:
    """`precond_of`, or `edm_of`; where the shift depends on the size, it comes from `mu`, or is 1
    without."""
    if is_edm(config):
        return edm_of(config)
    if is_flow(config) and config.get("use_dynamic_shifting"):
        config = {**config, "use_dynamic_shifting": False, "shift": dynamic_shift(config, mu)}
    return precond_of(config)


def without_lowest_snr(found: Precond, least: float | None) -> Precond:
    """`found` without timesteps whose lambda = -ln(sigma) is below `least`. ValueError if fewer
    than two stay."""
    if least is None or found.sigmas is None:
        return found
    kept = tuple(s for s in found.sigmas if -math.log(s) >= least)
    if len(kept) < 2:
        raise ValueError(f"lambda_min_clipped {least:g} leaves no timesteps")
    return replace(found, sigmas=kept, sigma_max=min(found.sigma_max, kept[-1]))


def training_times(config: Mapping[str, Any]) -> int:
    """How many timesteps the network was trained on."""
    return int(config.get("num_train_timesteps", 1000))
