"""The one place where networks are known by name, and how each remembers what made it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from types import ModuleType
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from kdiff.names import Registry, left_out

Network = TypeVar("Network", bound=type[nn.Module])


def network(name: str) -> Callable[[Network], Network]:
    """Register the class below under `name`. Its instances then have `config`: the name and the
    constructor's arguments as they were given, which must be plain values (JSON)."""

    def register(cls: Network) -> Network:
        construct, signature = cls.__init__, inspect.signature(cls)

        @functools.wraps(construct)
        def recording(self, *args, **settings):
            construct(self, *args, **settings)
            if type(self) is cls:  # a subclass has arguments of its own
                self.config = {"name": name, **signature.bind(*args, **settings).arguments}

        cls.__init__ = recording  # type: ignore[method-assign]
        NETWORKS[name] = cls
        return cls

    return register


def _adopt(registry: Registry[type[nn.Module]], name: str, thing: Any) -> None:
    """A class; one that was decorated, and a module of such, have registered themselves."""
    if isinstance(thing, type):
        if name not in registry and thing not in registry.values():
            network(name)(thing)
    elif not isinstance(thing, ModuleType):
        left_out(registry, name, "a network is a class")


NETWORKS: Registry[type[nn.Module]] = Registry("network", "kdiff.networks", _adopt)


def classes_of(network: object) -> int | None:
    """The number of classes of a registered network; None for any other network."""
    if type(network) not in NETWORKS.values():
        return None
    config = network.config  # type: ignore[attr-defined]
    return config.get("label_dim") or config.get("num_classes") or 0


def learns_variance(config: Mapping[str, Any], shape: Sequence[int]) -> bool:
    """Whether a network of these arguments returns a variance beside the mean: it then has twice as
    many channels as samples of `shape`."""
    return len(shape) > 0 and config.get("out_channels") == 2 * shape[0]


@contextmanager
def at_most(parameters: int) -> Iterator[None]:
    """Limit the number of parameters of networks that this thread builds in this block, because a
    file of a few bytes can ask for millions of layers. ValueError at the first one beyond it."""
    left, thread = parameters, get_ident()

    def count(*_: object) -> None:
        nonlocal left
        if get_ident() == thread:
            left -= 1
        if left < 0:
            raise ValueError("its network would have more tensors than the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
