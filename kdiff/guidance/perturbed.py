"""Guidance away from what the network answers when some of its layers are changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from kdiff.guidance.asking import CONDITIONAL
from kdiff.guidance.layers import AUTO, Layers, find_layers
from kdiff.guidance.registry import unguided
from kdiff.model import Denoise, Model
from kdiff.options import Option

if TYPE_CHECKING:
    from torch import Tensor, nn

Scale = Annotated[float, Option("w': 0 is no guidance", -100, 100)]
Where = Annotated[str, Option(f"names or numbers of layers, joined by +; {AUTO}: the usual ones")]
Low = Annotated[float, Option("only where sigma is at least this", 0)]
High = Annotated[float, Option("only where sigma is at most this", 0)]

Perturbed = Callable[["nn.Module", "Layers", "Tensor"], AbstractContextManager[None]]


def asks(
    inner: frozenset[str], sigma: float, *, scale: float, low: float, high: float, **options: Any
) -> frozenset[str]:
    """One more answer, which is never computed twice: c of the changed network. And c itself."""
    if not _acts(sigma, scale, low, high):
        return inner
    return inner | {CONDITIONAL, f"{CONDITIONAL} with changed layers {len(inner)}"}


def _acts(sigma: float, scale: float, low: float, high: float) -> bool:
    return scale != 0 and low <= sigma <= high


def away_from(
    perturbed: Perturbed,
    model: Model,
    *,
    scale: float,
    layers: str = AUTO,
    low: float = 0.0,
    high: float = math.inf,
    attention: bool = False,
) -> Denoise:
    """D + w' (c - c'): c is the answer of the model inside all guidance, and c' its answer within
    `perturbed(network, layers, x)`. ValueError if it has no module with these layers, and unless
    low <= high."""
    if not low <= high:
        raise ValueError(f"changed layers need low <= high, not {low:g} and {high:g}")
    network = _network(model)
    found = find_layers(network, layers, attention)

    def denoise(x: Tensor, sigma: float, **cond: Any) -> Tensor:
        d = model(x, sigma, **cond)
        if not _acts(sigma, scale, low, high):
            return d
        base = unguided(model)
        c = base(x, sigma, **cond)
        with perturbed(network, found, x):
            changed = base.anew(x, sigma, **cond)
        return d + scale * (c - changed)

    return denoise


def _network(model: Model) -> nn.Module:
    from torch import nn

    network = getattr(unguided(model), "network", None)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{model.name} has no network of PyTorch's whose layers could be changed")
    return network
