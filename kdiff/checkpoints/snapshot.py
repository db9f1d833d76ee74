"""The modules in a `network-snapshot-*.pkl` of NVIDIA's EDM and EDM2: their tensors and the
arguments they were constructed with, out of the pickle's inert records."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from kdiff.checkpoints.pickle_machine import Record, TensorRecord
from kdiff.checkpoints.unpickle import Pickle, opened
from kdiff.checkpoints.weights import load_weights

_MAX_BLOCKS = 1000  # of a network; the published ones have below 40
_MAX_PREFIX = 1000  # letters in the names of nested modules
Network = TypeVar("Network", bound=nn.Module)


def preconditioner(value: Any) -> Record:
    """The network of a snapshot (`ema`) with its preconditioner. Some pickles hold nothing else.
    ValueError if there is no network."""
    found = value.get("ema") if isinstance(value, dict) else value
    if not isinstance(found, Record) or not isinstance(found.state, dict):
        raise ValueError("it has no network, neither under 'ema' nor by itself")
    return found


def missing(path: Path, classes: Collection[str], networks: Collection[str] = ()) -> str | None:
    """None if the file is a snapshot whose preconditioner is one of `classes`, or has one of
    `networks` in it, else a reason. No tensor is read."""
    if not path.is_file():
        return "not a file"
    with open(path, "rb") as file:
        if file.read(2) not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return "not a pickle"
    try:
        with opened(path) as pickle:
            net = preconditioner(pickle.value)
            inside = (net.state.get("_modules") or {}).get("model")
    except ValueError as error:
        return str(error).removeprefix(f"{path} was ")
    known = isinstance(inside, Record) and inside.name in networks
    if net.name in classes or known:
        return None
    return f"its network is another than {', '.join(classes)}: {net.name[:80]}"


def number(module: Record, name: str) -> float:
    """A number among a module's attributes."""
    value = module.state.get(name)
    if type(value) not in (int, float) or math.isnan(value):
        raise ValueError(f"its {module.name} has no number {name}")
    return value


def build(
    pickle: Pickle,
    module: Record,
    network: Callable[..., Network],
    dtype: torch.dtype | None,
    **defaults: Any,
) -> Network:
    """kdiff's `network` for `module`, with its arguments, as far as it gave them, and its tensors,
    loaded by `load_weights`."""
    arguments = {**defaults, **_arguments(module, inspect.signature(network).parameters)}
    with torch.device("meta"):  # weights that are replaced need neither memory nor random numbers
        made = network(**arguments)
    load_weights(made, ((name, pickle.tensor(t)) for name, t in _tensors(module)), dtype)
    return made


def _arguments(module: Record, known: Mapping[str, Any]) -> dict[str, Any]:
    given = module.state["_init_kwargs"]
    if module.state["_init_args"]:
        raise ValueError(f"its {module.name} was constructed without the arguments' names")
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not all(v is None or type(v) in (bool, int, float, str) for v in values):
            raise ValueError(f"its {module.name} has no plain value as {name}")
        if name not in known:
            raise ValueError(f"its {module.name} has a {name}, which kdiff's has not")
    blocks = (given.get("num_blocks", 0) + 2) * len(given.get("channel_mult", ()))
    if blocks > _MAX_BLOCKS:  # constructing them takes time, though no memory
        raise ValueError(f"its {module.name} claims {blocks:,} blocks")
    return given


def _tensors(module: Record) -> Iterator[tuple[str, TensorRecord]]:
    """The names and tensors of a module and those in it, as its state dict has them."""
    seen: set[int] = set()
    pending = [("", module)]
    while pending:
        prefix, module = pending.pop()
        if len(prefix) > _MAX_PREFIX:
            raise ValueError("it has modules in modules without end")
        if id(module) in seen:
            raise ValueError("it has a module that is part of two, or of itself")
        seen.add(id(module))
        for name, tensor in {**module.state["_parameters"], **module.state["_buffers"]}.items():
            if isinstance(tensor, TensorRecord):
                yield prefix + name, tensor
        children = module.state["_modules"].items()
        pending += [(f"{prefix}{name}.", child) for name, child in children if child is not None]
