"""Classifiers of noisy images: a protocol, and the two forms in which kdiff has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdiff.counts import sizes
from kdiff.denoiser import computing_dtype
from kdiff.functions import called
from kdiff.hashes import sha256_of_file
from kdiff.preconditioners import Precond


@runtime_checkable
class NoisyClassifier(Protocol):
    """`classifier(x, sigma)`: the logits `[N, classes]` of p(y | x; sigma), for x = x0 + sigma n
    `[N, *shape]` at noise level `sigma`, one float. They can be differentiated by x.

    `classes` are names, and `shape` is None, if the classifier does not say them: empty, None.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int] | None: ...
    @property
    def classes(self) -> Sequence[str]: ...

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Any: ...

    def record(self) -> dict[str, Any]:
        """What names the classifier in results: `name`, and `sha256` of its file or None."""
        ...


class Classifier:
    """`network(c_in x, c_noise) -> logits`, with c_in and c_noise of a preconditioner. The weights
    are frozen: only x is differentiated. `path`: the file that they are from."""

    def __init__(
        self,
        network: nn.Module,
        precond: Precond,
        *,
        shape: Sequence[int],
        classes: Sequence[str],
        name: str,
        path: Path | None = None,
        facts: Mapping[str, str] | None = None,
    ):
        self.network = network.eval().requires_grad_(False)
        self.precond, self.name, self.path = precond, name, path
        self.shape, self.classes = sizes(shape), tuple(classes)
        self.facts = dict(facts or {})

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        c = self.precond(sigma)
        dtype = computing_dtype(self.network) or x.dtype
        clock = torch.promote_types(dtype, torch.float32)
        c_noise = torch.full((len(x),), c.c_noise, dtype=clock, device=x.device)
        return self.network((c.c_in * x).to(dtype), c_noise).to(x.dtype)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Classifier:
        """Move the network (in place) and return self."""
        self.network.to(device=device, dtype=dtype)
        return self

    @cached_property
    def sha256(self) -> str | None:
        return None if self.path is None else sha256_of_file(self.path)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256}


class FunctionClassifier:
    """Any function `f(x, sigma) -> logits`, with those of `name`, `shape` and `classes` that it
    has. A module's weights are not changed: gradients are asked for x alone."""

    def __init__(self, f: Callable[[Tensor, float], Tensor], name: str):
        self.f = f
        self.name = getattr(f, "name", name)
        self.shape: Sequence[int] | None = getattr(f, "shape", None)
        self.classes: Sequence[str] = tuple(getattr(f, "classes", ()))

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        return called("it", self.f, x, sigma)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> FunctionClassifier:
        """Move a module (in place), and return self."""
        if isinstance(self.f, nn.Module):
            self.f.to(device=device, dtype=dtype)
        return self

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": None}
