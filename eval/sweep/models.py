"""The models of a sweep, which planning, checks and cells share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import kdiff
from kdiff.denoiser import Denoiser
from kdiff.eval.sweep.cell import ModelSpec
from kdiff.guidance import GUIDANCE, guided
from kdiff.modifications import Modification


class Models:
    """Each file is loaded once, and at most one of them is on the device. Prompts are encoded once,
    before their model runs."""

    def __init__(self) -> None:
        self._loaded: dict[Path, Denoiser] = {}
        self._beside: dict[tuple[str, str, Any], Any] = {}
        self._running: Path | None = None
        self._encoded: tuple[Any, dict[str, Any]] = (None, {})

    def load(self, spec: ModelSpec) -> Denoiser:
        """The model without its guidance, for images of the size that it is asked for. Errors as
        `kdiff.load`."""
        if spec.path not in self._loaded:
            self._loaded[spec.path] = kdiff.load(spec.path)
        loaded = self._loaded[spec.path]
        return spec.text.fit(loaded) if spec.text else loaded

    def told(
        self, spec: ModelSpec, n: int, device: torch.device | str, dtype: torch.dtype
    ) -> dict[str, Any]:
        """The conditions of `n` images, of a model of prompts; nothing for others."""
        if spec.text is None:
            return {}
        key = spec.path, spec.text, n, dtype
        if self._encoded[0] != key:
            made = spec.text.conditions(self.load(spec), n, device, dtype)
            self._encoded = key, made
        return self._encoded[1]

    def on(self, device: torch.device | str, spec: ModelSpec, dtype: torch.dtype) -> Any:
        """The model with its guidance, on the device. The one that was there before is forgotten,
        since a sweep finishes with one model before it begins with the next."""
        if self._running not in (None, spec.path):
            self._loaded.pop(self._running, None)
        self._running = spec.path
        return self.guided(spec).to(device, dtype)

    def guided(self, spec: ModelSpec) -> Any:
        """The model with its guidance. Networks beside it are loaded once, for all cells of all
        models. Errors as `kdiff.guidance.guided`."""
        return guided(self.load(spec), [self._with_networks(one) for one in spec.guides])

    def _with_networks(self, one: Modification) -> Modification:
        """With what has been loaded in the place of the files' names."""
        held = {}
        for key, load in GUIDANCE.find(one.name).thing.loads.items():
            place = one.name, key, one.options[key]
            if place not in self._beside:
                self._beside[place] = load(one.options[key])
            held[key] = self._beside[place]
        return Modification(one.name, {**one.options, **held})
