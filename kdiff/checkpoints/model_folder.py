"""A model in a folder, as Hugging Face's libraries save it: config.json and files of weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdiff.checkpoints import torch_zip
from kdiff.downloads import check_file
from kdiff.files import parse_json, read_text

_MOST_JSON = 2**20  # bytes; real ones have a few thousand


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


def config_and_weights(
    folder: Path, variant: str | None, names: Mapping[str, str]
) -> tuple[dict[str, Any], list[Path]]:
    """What config.json says, and the files of weights, as `weight_files` finds them. ValueError if
    one is missing, or the weights are quantized."""
    config = read_json(folder / "config.json")
    if config.get("quantization_config") is not None:
        raise ValueError(f"{folder}: quantized weights are not supported")
    _, weights = weight_files(folder, variant, names)
    for file in weights:
        check_file(file)
    return config, weights


def weight_files(
    folder: Path, variant: str | None, names: Mapping[str, str]
) -> tuple[list[Path], list[Path]]:
    """The files of weights that the library takes, and before them their index, if it has one.
    `names`: how they begin, by suffix, the preferred one first."""
    middle = f".{variant}" if variant else ""
    for suffix, name in names.items():
        index = folder / f"{name}.{suffix}.index{middle}.json"
        old = folder / f"{name}.{suffix}{middle}.index.json"
        if is_there(index):
            return [index], _shards(index, suffix)
        if is_there(old):
            raise ValueError(f"{old} has an old form of name: call it {index.name}")
        whole = folder / f"{name}{middle}.{suffix}"
        if is_there(whole) and whole.is_file():
            return [], [whole]
    beginnings = dict.fromkeys(names.values())
    found = {p.name for name in beginnings for p in folder.glob(f"{name}[.-]*")}
    others = ", ".join(sorted(found))
    told = "give another variant, or none" if variant else "give variant"
    hint = f" (there is {others}: {told})" if others else ""
    raise ValueError(f"no {next(iter(beginnings))}{middle}.safetensors or .bin in {folder}{hint}")


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


def tensors_in(file: Path) -> Iterator[tuple[str, Tensor]]:
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
