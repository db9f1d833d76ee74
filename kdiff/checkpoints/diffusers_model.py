"""One network in a folder that diffusers' `save_pretrained` wrote: its config.json and weights.

The network is diffusers' own class. Before it is built, its size is compared with the size of the
weights, so that a config.json alone cannot fill the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdiff.checkpoints import torch_zip, unwrap
from kdiff.checkpoints.weights import common_type, load_weights
from kdiff.downloads import check_file
from kdiff.files import parse_json, read_text

_WEIGHTS = "diffusion_pytorch_model"
_MOST_JSON = 2**20  # bytes; real ones have a few thousand
_SPARE = 2**24  # numbers that a network may have beside its weights: tables of position embeddings


def is_there(path: Path) -> bool:
    """Whether the file or folder exists. ValueError for a link that leads to nothing."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"{path} is a link that leads to nothing")
    return os.path.exists(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. ValueError if there is none."""
    if not (is_there(path) and path.is_file()):
        raise ValueError(f"no {path.name} in {path.parent}")
    check_file(path)
    found = parse_json(read_text(path, _MOST_JSON), path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found


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
    config = read_json(folder / "config.json")
    if config.get("quantization_config") is not None:
        raise ValueError(f"{folder}: quantized weights are not supported")
    _, weights = _weights(folder, variant)
    for file in weights:
        check_file(file)
    names = _check_size(kind, config, folder, weights)
    tensors = {name: tensor for file in weights for name, tensor in _tensors(file)}
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
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report[problem]:
            told = f"{problem.replace('_', ' ')}: {', '.join(map(str, report[problem]))}"
            raise ValueError(f"{folder}: weights and config.json do not fit: {told[:200]}")
    return network.eval().requires_grad_(False)


def files_of(folder: Path, variant: str | None) -> list[Path]:
    """All files that `build` reads."""
    index, weights = _weights(folder, variant)
    return [folder / "config.json", *index, *weights]


def _weights(folder: Path, variant: str | None) -> tuple[list[Path], list[Path]]:
    """The files of weights that diffusers takes, and before them their index, if it has one."""
    middle = f".{variant}" if variant else ""
    for suffix in ("safetensors", "bin"):
        index = folder / f"{_WEIGHTS}.{suffix}.index{middle}.json"
        old = folder / f"{_WEIGHTS}.{suffix}{middle}.index.json"
        if is_there(index):
            return [index], _shards(index, suffix)
        if is_there(old):
            raise ValueError(f"{old} has an old form of name: call it {index.name}")
        whole = folder / f"{_WEIGHTS}{middle}.{suffix}"
        if is_there(whole) and whole.is_file():
            return [], [whole]
    others = ", ".join(sorted(p.name for p in folder.glob(f"{_WEIGHTS}*")))
    told = "give another variant, or none" if variant else "give variant"
    hint = f" (there is {others}: {told})" if others else ""
    raise ValueError(f"no {_WEIGHTS}{middle}.safetensors or .bin in {folder}{hint}")


def _shards(index: Path, suffix: str) -> list[Path]:
    """The files that an index names: in its folder, and of the same kind."""
    found = read_json(index).get("weight_map")
    names = list(found.values()) if isinstance(found, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{index} names no files of weights")
    files = [index.parent / name for name in sorted(set(names))]
    for file in files:
        if file.parent != index.parent or file.suffix != f".{suffix}" or not file.is_file():
            raise ValueError(
                f"{index} names {file.name[:100]}, which is not a weights file beside it"
            )
    return files


def _check_size(kind: type, config: Mapping[str, Any], folder: Path, files: list[Path]) -> set[str]:
    """The names of the network's tensors. ValueError if it is far larger than the weights."""
    counts = [tensor.numel() for file in files for _, tensor in _tensors(file)]
    for key, value in config.items():
        layers = value if isinstance(value, list) else [value]
        if "layers" in key and any(isinstance(n, int) and n > len(counts) for n in layers):
            raise ValueError(f"{folder}: {key} is {value}; the weights are {len(counts)} tensors")
    with torch.device("meta"):
        network = kind.from_config(dict(config))  # type: ignore[attr-defined]
    needed = sum(t.numel() for t in (*network.parameters(), *network.buffers()))
    if needed > sum(counts) + _SPARE:
        raise ValueError(
            f"{folder}: config.json describes a network of {needed} numbers, the weights have "
            f"{sum(counts)}"
        )
    return set(network.state_dict())


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a file of weights. They are mapped, and read when they are used."""
    if file.suffix == ".bin":
        tensors = torch_zip.tensors_under("", torch_zip.read(file))
        if sum(t.nbytes for t in tensors.values()) > file.stat().st_size:
            raise ValueError(f"{file}: its tensors are not stored in the file")
        yield from tensors.items()
        return
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                yield key, opened.get_tensor(key)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}") from error
