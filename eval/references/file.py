"""kdiff's file of a reference: safetensors with float32 arrays, and the label as JSON. For 2048
dimensions it takes 8.4 MB."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdiff.eval.references.reference import Label, Reference
from kdiff.eval.statistics import STATISTICS
from kdiff.files import parse_json, user_path, whole_file

FORMAT = "kdiff-reference/1"


def save_reference(reference: Reference, path: str | Path) -> None:
    """Write it, whole or not at all. The folder must exist."""
    metadata = {"format": FORMAT, "label": json.dumps(asdict(reference.label))}
    with whole_file(user_path(path)) as temporary:
        save_file(reference.arrays(), temporary, metadata)


def load_reference(path: str | Path) -> Reference:
    """ValueError if it is not a whole kdiff reference."""
    label, arrays = _read(user_path(path), with_arrays=True)
    found: dict[str, Any] = {}
    for statistic in STATISTICS.values():
        prefix = statistic.prefix
        if prefix is None or statistic.load is None:
            continue
        own = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
        if prefix and not own:  # only the mean and covariance, without a prefix, must be there
            continue
        try:
            found[statistic.name] = statistic.load(own, label.n)
        except KeyError as error:
            key = prefix + error.args[0]
            raise ValueError(f"{path} has no {key!r}: it is not a whole {FORMAT} file") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return Reference(**asdict(label), statistics=found)


def load_label(path: str | Path) -> Label:
    """Only what is on the label, quickly. ValueError if it is not a kdiff reference."""
    return _read(user_path(path), with_arrays=False)[0]


def _read(path: Path, with_arrays: bool) -> tuple[Label, dict[str, np.ndarray]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            keys = file.keys() if with_arrays else []
            arrays = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a {FORMAT} one")
    try:
        label = Label(**parse_json(metadata["label"], "it"))
        known = {key: value for key, value in asdict(label).items() if value is not None}
        if not all(type(v) is (int if k == "n" else str) for k, v in known.items()):
            raise TypeError("its values are of the wrong types")
        if label.n is not None and not 0 < label.n < 2**53:
            raise ValueError("its number of images must be from 1 to 2^53 - 1")
        return label, arrays
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a label that kdiff cannot read: {error}") from error
