"""The models of a sweep, which planning, checks and cells share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import kdiff
from kdiff.denoiser import Denoiser
from kdiff.eval.sweep.cell import ModelSpec
from kdiff.guidance import guided


class Models:
    """Each file is loaded once, and at most one of them is on the device."""

    def __init__(self) -> None:
        self._loaded: dict[Path, Denoiser] = {}
        self._running: Path | None = None

    def load(self, spec: ModelSpec) -> Denoiser:
        """The model without its guidance. Errors as `kdiff.load`."""
        if spec.path not in self._loaded:
            self._loaded[spec.path] = kdiff.load(spec.path)
        return self._loaded[spec.path]

    def on(self, device: torch.device | str, spec: ModelSpec, dtype: torch.dtype) -> Any:
        """The model with its guidance, on the device. The one that was there before is forgotten,
        since a sweep finishes with one model before it begins with the next."""
        if self._running not in (None, spec.path):
            self._loaded.pop(self._running, None)
        self._running = spec.path
        return guided(self.load(spec).to(device, dtype), spec.guides)
