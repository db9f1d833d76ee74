"""What can be sampled: a protocol, and the models that stand around another one.

Everything that runs a model (`kdiff.sample`, sweeps, the command line) asks it for nothing but what
is in `Model`. `Denoiser` is one. A guided model is one too: `Wrapper` passes on what it does not
change. A bare function becomes one through `as_model`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kdiff.conditions import plain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdiff.plans import Plan

Denoise = Callable[..., "Tensor"]


@runtime_checkable
class Model(Protocol):
    """`model(x, sigma, **cond)`: the clean data in `x` `[N, *shape]` at noise level `sigma`, one
    float. `cond` are conditions as in `kdiff.conditions`.

    `shape`, `sigma_min` and `sigma_max` are None if the model does not say them. `sigmas` is the
    table of a discrete model, and `sigma_end` where schedules of its timesteps begin, if not at
    `sigma_max`. `memory_format`: in which it likes to be given x. `dtype`: None if it computes in
    that of x.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int] | None: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def sigma_min(self) -> float | None: ...
    @property
    def sigma_max(self) -> float | None: ...
    @property
    def sigmas(self) -> Sequence[float] | None: ...
    @property
    def sigma_end(self) -> float | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype | None: ...
    @property
    def memory_format(self) -> torch.memory_format: ...

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor: ...

    def decode(self, x: Tensor, /) -> Tensor:
        """Samples to images in [-1, 1]; `x` itself unless the model makes latents."""
        ...

    def evaluations(self, sigma: float, /) -> int:
        """How often a call at this noise level evaluates the network: twice if it is guided by
        another evaluation."""
        ...

    def record(self) -> dict[str, Any]:
        """What names the model in results: `name`, `sha256` of its files (None if it has none), and
        `guidance`, what stands around it from the inside out, if anything does."""
        ...


class Wrapper:
    """A model around a `model`, which it passes everything on to. Subclasses change `__call__`, and
    what else is different."""

    def __init__(self, model: Any):
        self.model: Any = model

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        return self.model(x, sigma, **cond)

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):  # while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Move the network (in place) and return self."""
        self.model.to(device, dtype)
        return self

    def compile(self) -> Any:
        """Compile the network (in place) and return self."""
        self.model.compile()
        return self

    def replace(self, *args: Any, **changes: Any) -> Any:
        """The same around what `model.replace` makes; see `Denoiser.replace`."""
        other = copy.copy(self)
        other.model = self.model.replace(*args, **changes)
        return other


class Bare:
    """Any function `f(x, sigma, **cond)` as a `Model`, with those attributes that `f` has."""

    def __init__(self, f: Denoise):
        self.f = f

    def __call__(self, x: Tensor, sigma: float, **cond: Any) -> Tensor:
        return self.f(x, sigma, **plain(cond))

    def __getattr__(self, name: str) -> Any:
        if name == "f" or name.startswith("__"):
            raise AttributeError(name)
        unsaid = _unsaid()
        if name not in unsaid:
            return getattr(self.f, name)
        return getattr(self.f, name, unsaid[name])

    def decode(self, x: Tensor, /) -> Tensor:
        return self.f.decode(x) if hasattr(self.f, "decode") else x

    def evaluations(self, sigma: float, /) -> int:
        return 1

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": None}


@cache
def _unsaid() -> Mapping[str, Any]:
    """What a function that does not say it is taken to have."""
    import torch

    return {
        "name": "unnamed",
        "shape": None,
        "classes": (),
        "sigma_min": None,
        "sigma_max": None,
        "sigmas": None,
        "sigma_end": None,
        "device": torch.device("cpu"),
        "dtype": None,
        "memory_format": torch.contiguous_format,
    }


def as_model(f: Any) -> Any:
    """`f` itself if it is a `Model`, or else `Bare(f)`. TypeError if it cannot be called."""
    if not callable(f):
        raise TypeError(f"a model must be a function of (x, sigma), not {f!r:.80}")
    return f if hasattr(f, "evaluations") and hasattr(f, "record") else Bare(f)


def network_nfe(model: Model, plan: Plan) -> int | None:
    """How often `plan` evaluates the network of `model`, for each sample; None if that is not known
    before it has run."""
    levels = plan.levels
    return None if levels is None else sum(map(model.evaluations, levels))
