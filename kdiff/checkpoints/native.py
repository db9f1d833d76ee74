"""kdiff's own checkpoints: safetensors whose metadata says how to build and call the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdiff.denoiser import Denoiser
from kdiff.files import whole_file
from kdiff.networks import NETWORKS
from kdiff.precond import precond

FORMAT = "kdiff/1"


def save(
    path: str | Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write `tensors` (a network's state dict) as `dtype` and `config`: `network` (its name and
    arguments), `precond` (likewise), `shape`, `classes`."""
    stored = {
        k: v.detach().to(
            dtype=dtype, copy=True, device="cpu", memory_format=torch.contiguous_format
        )
        for k, v in tensors.items()
    }
    with whole_file(path) as temporary:
        save_file(stored, temporary, {"format": FORMAT, "config": json.dumps(config)})


def load(path: str | Path, name: str | None = None) -> Denoiser:
    """The denoiser saved at `path`, on the CPU, in float32 and evaluation mode.

    ValueError if it is not a whole kdiff checkpoint.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a {FORMAT} checkpoint")
    try:
        return build(json.loads(metadata["config"]), tensors, name or path.stem)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: its config and its tensors do not fit: {reason}") from error


def build(config: dict[str, Any], tensors: dict[str, torch.Tensor], name: str) -> Denoiser:
    """The denoiser that a checkpoint's `config` describes, with `tensors` as its weights."""
    settings = dict(config["network"])
    network = NETWORKS[settings.pop("name")](**settings)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    return Denoiser(
        network,
        precond(**config["precond"]),
        shape=config["shape"],
        classes=config.get("classes", ()),
        name=name,
    )
