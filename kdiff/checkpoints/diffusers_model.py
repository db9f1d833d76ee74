"""One network in a folder that diffusers' `save_pretrained` wrote: its config.json and weights.

The network is diffusers' own class. Before it is built, its size is compared with the size of the
weights, so that a config.json alone cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdiff.checkpoints import unwrap
from kdiff.checkpoints.model_folder import (
    config_and_weights,
    read_json,
    tensors_in,
    weight_files,
)
from kdiff.checkpoints.weights import common_type, load_weights

_WEIGHTS = dict.fromkeys(("safetensors", "bin"), "diffusion_pytorch_model")
_SPARE = 2**24  # numbers that a network may have beside its weights: tables of position embeddings


def class_name(folder: Path) -> str:
    """The network class that config.json names. ValueError if it names none."""
    name = read_json(folder / "config.json").get("_class_name")
    if not isinstance(name, str):
        raise ValueError(f"{folder / 'config.json'} names no network of diffusers")
    return name


def build(kind: type, folder: Path, variant: str | None, dtype: torch.dtype | None) -> nn.Module:
    """The network of diffusers' class `kind` in a folder, with its weights, on the CPU, in `dtype`
    (None: the file's).

    safetensors, or else a .bin that is read without running code; nothing is downloaded.
    ValueError if weights and config.json do not fit.
    """
    config, weights = config_and_weights(folder, variant, _WEIGHTS)
    make = partial(kind.from_config, dict(config))  # type: ignore[attr-defined]
    names = check_size(make, config, folder, weights)
    tensors = {name: tensor for file in weights for name, tensor in tensors_in(file)}
    stored = common_type(tensors.values())
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices):  # some layers draw random numbers when they are made
        if not names & tensors.keys() and unwrap.find(tensors, sorted(names)):
            network = kind.from_config(config)  # type: ignore[attr-defined]
            chosen, _ = unwrap.take(tensors, sorted(names))
            load_weights(network, chosen.tensors.items(), dtype or stored)
            return network
        del tensors
        try:
            network, report = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                local_files_only=True,
                use_safetensors=weights[0].suffix == ".safetensors",
                variant=variant,
                torch_dtype=dtype or stored,
                output_loading_info=True,
            )
        except Exception as error:  # the exceptions depend on the version of diffusers
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder}: weights and config.json do not fit: {reason}") from error
    check_report(report, folder)
    return network.eval().requires_grad_(False)


def check_report(report: Mapping[str, Any], folder: Path) -> None:
    """ValueError if it names tensors that the network or the weights lack."""
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(problem):
            told = f"{problem.replace('_', ' ')}: {', '.join(map(str, report[problem]))}"
            raise ValueError(f"{folder}: weights and config.json do not fit: {told[:200]}")


def files_of(folder: Path, variant: str | None) -> list[Path]:
    """All files that `build` reads."""
    index, weights = weight_files(folder, variant, _WEIGHTS)
    return [folder / "config.json", *index, *weights]


def check_size(
    make: Callable[[], nn.Module], config: Mapping[str, Any], folder: Path, files: list[Path]
) -> set[str]:
    """The names of the tensors of the network that `make` makes of `config`. ValueError if it is
    far larger than the weights in the files."""
    counts = [tensor.numel() for file in files for _, tensor in tensors_in(file)]
    for key, value in config.items():
        layers = value if isinstance(value, list) else [value]
        if "layers" in key and any(isinstance(n, int) and n > len(counts) for n in layers):
            raise ValueError(f"{folder}: {key} is {value}; the weights are {len(counts)} tensors")
    with torch.device("meta"):
        network = make()
    needed = sum(t.numel() for t in (*network.parameters(), *network.buffers()))
    if needed > sum(counts) + _SPARE:
        raise ValueError(
            f"{folder}: config.json describes a network of {needed} numbers, the weights have "
            f"{sum(counts)}"
        )
    return set(network.state_dict())
