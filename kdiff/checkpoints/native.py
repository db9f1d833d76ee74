"""kdiff's own checkpoints: safetensors whose metadata says how to build and call the network.

A checkpoint is read tensor by tensor, each through a mapping of its own. While it loads, memory
holds the network and one tensor more; afterwards, only the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdiff.checkpoints import MissingSetting
from kdiff.checkpoints.weights import load_weights
from kdiff.denoiser import Denoiser
from kdiff.files import parse_json, user_path, whole_file
from kdiff.networks import NETWORKS, at_most, learns_variance
from kdiff.preconditioners import Precond
from kdiff.preconditioners import precond as make_precond

NAME = "kdiff"
FORMAT = "kdiff/1"
DATA = ("data_mean", "data_std")  # what a config may say of the data: see `kdiff.model_data`


def save(
    path: str | Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    format: str = FORMAT,
) -> None:
    """Write `tensors` (a network's state dict) as `dtype` and `config`: `network` (its name and
    arguments), `precond` (likewise), `shape`, `classes`. What has another `format` is not a model.

    Vectors keep their own type: they are few, and some are frequencies, which half precision ruins.
    ValueError if a value is too large for `dtype`.
    """
    stored = {
        k: v.detach().to(
            dtype=dtype if v.ndim > 1 and v.is_floating_point() else v.dtype,
            copy=True,
            device="cpu",
            memory_format=torch.contiguous_format,
        )
        for k, v in tensors.items()
    }
    for key, value in stored.items():
        if not value.isfinite().all() and tensors[key].isfinite().all():
            raise ValueError(f"{key} has values beyond {dtype}: choose float32 or bfloat16")
    with whole_file(user_path(path)) as temporary:
        save_file(stored, temporary, {"format": format, "config": json.dumps(config)})


def detect(path: Path) -> str | None:
    """None if the safetensors file says that it is kdiff's."""
    return detect_format(path, FORMAT)


def detect_format(path: Path, format: str) -> str | None:
    """None if it is a safetensors file that says that it is of this `format`."""
    if not path.is_file():
        return "not a file"
    try:
        metadata = _metadata(path)
    except SafetensorError as error:
        return f"not a whole safetensors file ({error})"
    if metadata.get("format") != format:
        return f"a safetensors file, but not a {format} checkpoint"
    return None


def load(
    path: str | Path,
    dtype: torch.dtype | None = torch.float32,
    *,
    precond: Precond | None = None,
    shape: Sequence[int] | None = None,
) -> Denoiser:
    """The denoiser saved at `path`, on the CPU, in `dtype` (None: the file's) and evaluation mode;
    `precond` and `shape` are needed where the file's config lacks them.

    ValueError if it is not a whole kdiff checkpoint.
    """
    path = user_path(path)
    missing = detect(path)
    if missing:
        raise ValueError(f"{path} is {missing}")
    try:
        config, names = parse_json(_metadata(path)["config"], "the config"), _names(path)
        # On meta: weights that will be replaced need neither memory nor random numbers.
        with torch.device("meta"), at_most(len(names)):
            network = _network(config["network"])
        load_weights(network, ((name, _tensor(path, name)) for name in names), dtype)
        if "shape" not in config and shape is not None:
            config["shape"] = shape
        missing = {"precond", "shape"} - config.keys() - ({"precond"} if precond else set())
        if missing:
            raise MissingSetting(f"it has no {missing.pop()}: give it by that keyword")
        return _denoiser(network, config, path.stem, precond)
    except MissingSetting as error:
        raise MissingSetting(f"{path}: its config is not complete: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its config and its tensors do not fit: {reason}") from error


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of a small file of any `format`."""
    return parse_json(_metadata(path)["config"], "the config"), load_file(path)


def describe(model: Denoiser) -> dict[str, Any]:
    """The `config` for `save` from which `model` can be built again.

    ValueError unless its network is one of `NETWORKS`, and its preconditioner one of `PRECONDS`.
    """
    network = getattr(model.network, "config", None)
    if not isinstance(network, dict) or network.get("name") not in NETWORKS:
        kind = type(model.network).__name__
        raise ValueError(
            f"{model.name}: its network, {kind}, is not one that kdiff can build itself"
        )
    if model.precond.config is None:
        raise ValueError(f"{model.name}: its preconditioner is not one of kdiff.precond's")
    return {
        "network": network,
        "precond": dict(model.precond.config),
        "shape": list(model.shape),
        "classes": list(model.classes),
        **({"learned_variance": True} if model.learned_variance else {}),
        **_chosen_range(model),
        **{key: getattr(model, key) for key in DATA if getattr(model, key) is not None},
    }


def _chosen_range(model: Denoiser) -> dict[str, float]:
    """The ends of the range that differ from the preconditioner's own."""
    own = make_precond(**model.precond.config or {})
    ends = {"sigma_min": model.sigma_min, "sigma_max": model.sigma_max}
    return {key: value for key, value in ends.items() if value != getattr(own, key)}


def _range(config: Mapping[str, Any], own: Precond) -> dict[str, float]:
    """The ends that the config chooses. Earlier files always have both. If they are the ends of the
    table of timesteps, nobody chose them."""
    ends = {key: config[key] for key in ("sigma_min", "sigma_max") if config.get(key) is not None}
    if own.sigmas and list(ends.values()) == [own.sigmas[0], own.sigmas[-1]]:
        return {}
    return {key: value for key, value in ends.items() if value != getattr(own, key)}


def build(config: dict[str, Any], tensors: dict[str, Tensor], name: str) -> Denoiser:
    """The denoiser that a checkpoint's `config` describes, with a copy of `tensors` as weights."""
    network = _network(config["network"])
    network.load_state_dict(tensors)
    return _denoiser(network, config, name)


def _network(settings: dict[str, Any]) -> nn.Module:
    arguments = {key: value for key, value in settings.items() if key != "name"}
    return NETWORKS.find(settings["name"]).thing(**arguments)


def _learned_variance(config: Mapping[str, Any]) -> bool:
    """Earlier files do not say it, so the network's channels decide."""
    said = config.get("learned_variance")
    return learns_variance(config["network"], config["shape"]) if said is None else said


def _denoiser(
    network: nn.Module, config: dict[str, Any], name: str, told: Precond | None = None
) -> Denoiser:
    network.eval().requires_grad_(False)
    process = told or make_precond(**config["precond"])
    chosen = _range(config, process)
    return Denoiser(
        network,
        process,
        shape=config["shape"],
        classes=config.get("classes", ()),
        sigma_min=chosen.get("sigma_min"),
        sigma_max=chosen.get("sigma_max"),
        learned_variance=_learned_variance(config),
        name=name,
        data_mean=config.get("data_mean"),
        data_std=config.get("data_std"),
        facts={
            "format": FORMAT,
            "parameterisation": f"{process.name}, from the file's metadata",
        },
    )


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _tensor(path: Path, name: str) -> Tensor:
    """The pages read through a mapping count as this process's memory until the mapping goes, so
    each tensor has a mapping of its own."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)
