"""`k_diffusion.config`: its JSON configurations, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from kdiff.checkpoints.k_diffusion import NETWORKS
from kdiff.compat.k_diffusion import augmentation, layers, models, utils
from kdiff.files import parse_json, read_json, user_path
from kdiff.networks.k_diffusion_v1 import KDiffusionV1
from kdiff.networks.k_diffusion_v2 import KDiffusionV2

_Config = dict[str, Any]

_ADAMW = {"type": "adamw", "eps": 1e-8, "weight_decay": 1e-4}
_TRANSFORMER = {"augment_wrapper": False, "skip_stages": 0, "has_variance": False}
_TRANSFORMER_ADAMW = {**_ADAMW, "lr": 5e-4, "betas": [0.9, 0.99]}
_DEFAULTS: _Config = {
    "model": {
        "sigma_data": 1.0,
        "dropout_rate": 0.0,
        "augment_prob": 0.0,
        "loss_config": "karras",
        "loss_weighting": "karras",
        "loss_scales": 1,
    },
    "dataset": {"type": "imagefolder", "num_classes": 0, "cond_dropout_rate": 0.1},
    "optimizer": {**_ADAMW, "lr": 1e-4, "betas": [0.9, 0.999]},
    "lr_sched": {"type": "constant", "warmup": 0.0},
    "ema_sched": {"type": "inverse", "power": 0.6667, "max_value": 0.9999},
}
_DEFAULTS_OF_TYPE: dict[str, _Config] = {
    "image_v1": {
        "model": {
            "patch_size": 1,
            "augment_wrapper": True,
            "mapping_cond_dim": 0,
            "unet_cond_dim": 0,
            "cross_cond_dim": 0,
            "cross_attn_depths": None,
            "skip_stages": 0,
            "has_variance": False,
        },
        "optimizer": {
            "type": "adamw",
            "lr": 1e-4,
            "betas": [0.95, 0.999],
            "eps": 1e-6,
            "weight_decay": 1e-3,
        },
    },
    "image_transformer_v1": {"model": {"d_ff": 0, **_TRANSFORMER}, "optimizer": _TRANSFORMER_ADAMW},
    "image_transformer_v2": {
        "model": {
            "mapping_width": 256,
            "mapping_depth": 2,
            "mapping_d_ff": None,
            "mapping_cond_dim": 0,
            "mapping_dropout_rate": 0.0,
            "d_ffs": None,
            "self_attns": None,
            "dropout_rate": None,
            **_TRANSFORMER,
        },
        "optimizer": _TRANSFORMER_ADAMW,
    },
}
_CLASSES: dict[Callable[..., nn.Module], Callable[..., nn.Module]] = {
    KDiffusionV1: models.ImageDenoiserModelV1,
    KDiffusionV2: models.ImageTransformerDenoiserModelV2,
}


def round_to_power_of_two(x: float, tol: float) -> int:
    """The multiple of the largest power of two that is within `tol` of x, relatively."""
    multiples = [round(x / 2**i) * 2**i for i in range(math.ceil(math.log2(x)))]
    near = [m for m in multiples if abs(m - x) <= tol * x]
    return near[-1] if near else multiples[0]


def load_config(path_or_dict: str | Path | _Config) -> _Config:
    """A configuration, with defaults for what it leaves out. It is a dict, a JSON file, or a
    safetensors file with it in the metadata. ValueError if it does not describe a model."""
    given = path_or_dict if isinstance(path_or_dict, dict) else _read(user_path(path_or_dict))
    try:
        kind = given["model"]["type"]
        full = _merged(_DEFAULTS_OF_TYPE.get(kind, {}), given)
        _fill_in(kind, full["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a k-diffusion config, or not a complete one: {error!r}") from error
    return _merged(_DEFAULTS, full)


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return read_json(path)
    config = (utils.get_safetensors_metadata(path) or {}).get("config")
    if config is None:
        raise ValueError(f"{path} has no config in its metadata")
    return parse_json(config, path)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> _Config:
    both = {
        key: _merged(base[key], over[key])
        for key in base.keys() & over.keys()
        if isinstance(base[key], dict) and isinstance(over[key], dict)
    }
    return {**base, **over, **both}


def _fill_in(kind: str, model: _Config) -> None:
    """Fill in the settings that follow from others."""
    if kind == "image_transformer_v1":
        model["d_ff"] = model["d_ff"] or round_to_power_of_two(model["width"] * 8 / 3, tol=0.05)
    if kind == "image_transformer_v2":
        widths = model["widths"]
        near = {"type": "neighborhood", "d_head": 64, "kernel_size": 7}
        wide = {"type": "global", "d_head": 64}
        rate = model["dropout_rate"] or 0.0
        model["mapping_d_ff"] = model["mapping_d_ff"] or 3 * model["mapping_width"]
        model["d_ffs"] = model["d_ffs"] or [3 * width for width in widths]
        model["self_attns"] = model["self_attns"] or [*[near] * (len(widths) - 1), wide]
        model["dropout_rate"] = [rate] * len(widths) if isinstance(rate, float) else rate


def make_model(config: _Config) -> nn.Module:
    """The network of a configuration, `model(x, sigma, **conditioning)`, ready to load a state dict
    of k-diffusion. It starts with torch's default values, and has no dropout. ValueError if kdiff
    does not have it."""
    kind = _setting(_setting(config, "model"), "type")
    if kind not in NETWORKS:
        raise ValueError(f"kdiff has no network {kind!r}; it has {' and '.join(NETWORKS)}")
    try:
        made = cast(partial, NETWORKS[kind](config))
    except (KeyError, TypeError) as error:
        raise ValueError(f"its config is not complete: {error!r}") from error
    network = _CLASSES[made.func](*made.args, **made.keywords)
    if kind == "image_v1" and config["model"].get("augment_wrapper", True):
        return augmentation.KarrasAugmentWrapper(network)
    return network


def _setting(settings: Any, *names: str) -> Any:
    """The first of the named settings that is there. ValueError if none is."""
    if not isinstance(settings, dict):
        raise ValueError(f"a config is a dict, as load_config returns it, not {settings!r:.80}")
    for name in names:
        if name in settings:
            return settings[name]
    raise ValueError(f"the config has no {' or '.join(names)}")


def make_denoiser_wrapper(config: _Config) -> Callable[..., nn.Module]:
    """The function that makes a denoiser of the network."""
    model = _setting(config, "model")
    loss, variance = model.get("loss_config", "karras"), model.get("has_variance", False)
    settings = {"sigma_data": model.get("sigma_data", 1.0)}
    if loss == "simple" and not variance:
        return partial(layers.SimpleLossDenoiser, **settings)
    if loss != "karras":
        raise ValueError(f"loss_config must be karras, or simple without variance, not {loss!r}")
    settings["weighting"] = model.get("loss_weighting", "karras")
    if variance:
        return partial(layers.DenoiserWithVariance, **settings)
    return partial(layers.Denoiser, **settings, scales=model.get("loss_scales", 1))


def make_sample_density(config: _Config) -> Callable[..., Any]:
    """The function that draws noise levels for training, `density([n], device=..)`, as the `model`
    part of a configuration says. ValueError if its type is unknown."""
    given, sigma_data = (_setting(config, key) for key in ("sigma_sample_density", "sigma_data"))

    def bounds(low: float, high: float) -> dict[str, Any]:
        return {"min_value": given.get("min_value", low), "max_value": given.get("max_value", high)}

    kind = _setting(given, "type")
    if kind == "lognormal":
        location = {"loc": _setting(given, "mean", "loc"), "scale": _setting(given, "std", "scale")}
        return partial(utils.rand_log_normal, **location)
    if kind == "loglogistic":
        loc, scale = given.get("loc", math.log(sigma_data)), given.get("scale", 0.5)
        return partial(utils.rand_log_logistic, loc=loc, scale=scale, **bounds(0.0, math.inf))
    if kind == "loguniform":
        return partial(
            utils.rand_log_uniform,
            **bounds(_setting(config, "sigma_min"), _setting(config, "sigma_max")),
        )
    if kind in ("v-diffusion", "cosine"):
        return partial(utils.rand_v_diffusion, sigma_data=sigma_data, **bounds(1e-3, 1e3))
    if kind == "split-lognormal":
        scales = {f"scale_{i}": _setting(given, f"std_{i}", f"scale_{i}") for i in (1, 2)}
        return partial(utils.rand_split_log_normal, loc=_setting(given, "mean", "loc"), **scales)
    if kind == "cosine-interpolated":
        size = max(_setting(config, "input_size"))
        return partial(
            utils.rand_cosine_interpolated,
            image_d=given.get("image_d", size),
            noise_d_low=given.get("noise_d_low", 32),
            noise_d_high=given.get("noise_d_high", size),
            sigma_data=sigma_data,
            **bounds(
                min(_setting(config, "sigma_min"), 1e-3), max(_setting(config, "sigma_max"), 1e3)
            ),
        )
    raise ValueError(f"unknown sigma_sample_density {kind!r}")
