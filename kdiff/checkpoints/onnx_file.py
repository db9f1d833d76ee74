"""ONNX models (`.onnx`), run by onnxruntime on the CPU, with their settings in `FILE.json`.

An ONNX graph only computes: its operators reach no files, and none of other libraries are loaded.
Weights may be in other files, but only in the model's folder. The first input is x, the second the
time, all others are conditions by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdiff.checkpoints import sidecar
from kdiff.checkpoints.onnx_external import external_files
from kdiff.denoiser import Denoiser

NAME = "onnx"

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def detect(path: Path) -> str | None:
    return None if path.is_file() and path.suffix == ".onnx" else "not an .onnx file"


def files(path: Path) -> list[Path]:
    """The model, its settings, and its files of weights. ValueError if one of these is outside the
    model's folder."""
    return list(dict.fromkeys([*sidecar.files(path), *external_files(path)]))


def load(path: Path, trust: bool | None = None, **told: Any) -> Denoiser:
    """ValueError without settings (beside it or told), without onnxruntime, if onnxruntime cannot
    run it, and where `files` raises it. `trust` changes nothing: a graph only computes."""
    sidecar.read(path, told)
    files(path)
    return sidecar.wrapped(path, Program(path), told)


class Program:
    """An ONNX model as a function of tensors."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f"{path} needs onnxruntime: pip install onnxruntime") from error
        onnxruntime.set_default_logger_severity(4)  # it would also print the errors that it raises
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise ValueError(f"{path}: onnxruntime cannot run it: {_reason(error)}") from error
        self.inputs = {entry.name: entry.type for entry in self.session.get_inputs()}
        wrong = set(self.inputs.values()) - _DTYPES.keys()
        if len(self.inputs) < 2 or wrong:
            raise ValueError(f"{path}: its inputs must be tensors, x and the time first")

    def __call__(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        first, second, *_ = self.inputs
        given = {first: x, second: t, **cond}
        unknown = given.keys() - self.inputs.keys()
        if unknown:
            raise ValueError(f"the ONNX model has no input {', '.join(sorted(unknown))}")
        feed = {k: _array(k, v, _DTYPES[self.inputs[k]]) for k, v in given.items()}
        try:
            answer = self.session.run(None, feed)[0]
        except Exception as error:  # onnxruntime's own errors, for instance when it refuses a shape
            raise ValueError(f"onnxruntime: {_reason(error)}") from error
        return torch.from_numpy(answer).to(x)


def _array(name: str, value: Any, dtype: Any) -> np.ndarray:
    """Rounded to whole numbers if the model takes such, because timesteps may lie between two.
    ValueError for a condition that is not a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"the ONNX model takes {name} as numbers, not as {type(value).__name__}")
    array = value.detach().cpu().numpy()
    return (np.rint(array) if np.issubdtype(dtype, np.integer) else array).astype(dtype)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
