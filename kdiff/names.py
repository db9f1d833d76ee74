"""Everything in kdiff that has a name is in a `Registry`: samplers, schedules, preconditioners,
networks, checkpoint formats, guidance, editing, metrics and feature networks."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import chain
from types import ModuleType
from typing import Any, Generic, TypeVar

from kdiff.plugins import plugins

T = TypeVar("T")


class UnknownName(ValueError):
    """Nothing has that name; the message suggests the nearest."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a name stands for: the thing, its own name, and the options that the name implies."""

    name: str
    thing: T
    options: Mapping[str, Any] = field(default_factory=dict)


class Registry(MutableMapping[str, T]):
    """Things of one kind by name, in the order in which they were registered.

    A thing may have `aliases`, a list of other names, and `presets`, other names with the options
    that each implies. Other packages add things through the entry points in `group`: an entry
    point names a thing, registered under the entry point's name, or a module, whose things
    register themselves when it is imported; `adopt(registry, name, object)` replaces this rule.
    `refused` are names that people know from elsewhere, and why nothing here has them.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        adopt: Callable[[Registry[T], str, Any], None] | None = None,
        refused: Mapping[str, str] | None = None,
    ):
        self.kind, self.group = kind, group
        self.refused = {normalise(name): why for name, why in (refused or {}).items()}
        self._things: dict[str, T] = {}
        self._known: dict[str, Found[T]] = {}  # by normalised names; empty: to be made
        self._adopting = False
        self._adopted: set[str] = set()  # names from other packages
        self._adopt = adopt or _adopt

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator: register the thing below under `name`."""

        def add(thing: T) -> T:
            self[name] = thing
            return thing

        return add

    def find(self, name: str) -> Found[T]:
        """The thing that has this name, alias or preset; case, spaces and punctuation do not count.
        Other packages are asked only if none of kdiff's own has it.

        UnknownName, with the nearest names, if there is none. TypeError if `name` is not text.
        """
        wanted = normalise(name)
        for known in (self._names, lambda: self.all()._names()):
            found = known().get(wanted)
            if found is not None:
                return found
        raise UnknownName(self.unknown(name))

    def unknown(self, name: str) -> str:
        """One line that says why the name is refused, or suggests the nearest names."""
        why = self.refused.get(normalise(name))
        if why is not None:
            return f"there is no {self.kind} {name!r:.80}: {why}"
        return unknown_name(self.kind, name, self._things, self._other_names())

    def all(self) -> Registry[T]:
        """The registry itself, with the things of other packages."""
        self._adopting = True
        try:
            for name, thing in plugins(self.group).items():
                try:
                    self._adopt(self, name, thing)
                except (TypeError, ValueError) as error:
                    left_out(self, name, str(error))
        finally:
            self._adopting = False
        return self

    def other_names(self, name: str) -> list[str]:
        """The aliases and presets of a thing."""
        thing = self._things[name]
        return [*getattr(thing, "aliases", ()), *getattr(thing, "presets", {})]

    def _names(self) -> dict[str, Found[T]]:
        known = self._known
        if not known:
            known = {}  # shown to other threads once it is whole
            # No thing's alias hides the name of another, and no plug-in's one of kdiff's own.
            things = list(self._things.items())
            for name, thing in things:
                known.setdefault(normalise(name), Found(name, thing))
            for name, thing in things:
                for alias in getattr(thing, "aliases", ()):
                    known.setdefault(normalise(alias), Found(name, thing))
                for alias, options in getattr(thing, "presets", {}).items():
                    known.setdefault(normalise(alias), Found(name, thing, options))
            self._known = known
        return known

    def _other_names(self) -> Iterable[str]:
        return chain.from_iterable(self.other_names(name) for name in self._things)

    def __getitem__(self, name: str) -> T:
        return self._things[name]

    def __setitem__(self, name: str, thing: T) -> None:
        """ValueError for a name without letters and digits, or if another package, whose things are
        being loaded, gives its own the name of one that is there. TypeError if it is not text."""
        key = normalise(name)
        if not key:
            raise ValueError(
                f"the name of {with_article(self.kind)} needs letters or digits, not {name!r:.80}"
            )
        if self._adopting:
            for known in self._things.keys() - self._adopted:
                if normalise(known) == key:
                    raise ValueError(f"there is {with_article(self.kind)} named {known} already")
            self._adopted.add(name)
        self._things[name] = thing
        self._known = {}

    def __delitem__(self, name: str) -> None:
        del self._things[name]
        self._adopted.discard(name)
        self._known = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


def _adopt(registry: Registry[Any], name: str, thing: Any) -> None:
    if not isinstance(thing, ModuleType):
        registry.setdefault(name, thing)


def made_of_functions(kind: type) -> Callable[[Registry[Any], str, Any], None]:
    """The `adopt` of things that a decorator makes of functions. A module, or such a function, has
    registered what it has when it was imported; a warning tells of anything else that is not a
    `kind`."""

    def adopt(registry: Registry[Any], name: str, thing: Any) -> None:
        if isinstance(thing, kind):
            registry.setdefault(name, thing)
        elif not isinstance(thing, ModuleType) and not any(
            getattr(known, "function", None) is getattr(thing, "__wrapped__", thing)
            for known in registry.values()
        ):
            left_out(registry, name, f"it does not register {with_article(registry.kind)}")

    return adopt


def left_out(registry: Registry[Any], name: str, why: str) -> None:
    """A warning: what an entry point names is not in the registry."""
    warnings.warn(f"{name} of {registry.group} is left out: {why}", stacklevel=5)


def with_article(kind: str) -> str:
    """`edit` -> `an edit`."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def normalise(name: str) -> str:
    """`DPM++ 2M` and `sample_dpmpp_2m` -> `dpmpp2m`, `get_sigmas_karras` -> `karras`."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be text, not {name!r}")
    plain = re.sub("[^a-z0-9]", "", name.lower().replace("+", "p"))
    return plain.removeprefix("sample").removeprefix("getsigmas")


def unknown_name(kind: str, name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """One line that suggests the nearest names, or lists the known ones if none is near."""
    known = list(known)
    by_key = {normalise(k): k for k in (*aliases, *known)}
    nearest = difflib.get_close_matches(normalise(name), by_key, n=3, cutoff=0.5)
    if nearest:
        return (
            f"unknown {kind} {name!r:.80}; did you mean {' or '.join(by_key[k] for k in nearest)}?"
        )
    return f"unknown {kind} {name!r:.80}; there is {', '.join(known) or 'none'}"
