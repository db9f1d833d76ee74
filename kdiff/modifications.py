"""Modifications of a run, by name and options: what `--guide cfg:scale=1.5` says.

There are two kinds. A guidance is a function from model to model (`kdiff.guidance`). An edit is a
function from coroutine to coroutine (`kdiff.editing`): it sees asks, answers and the run's own
noise, so what is stateful or noisy belongs there. A run is a model, modifications and a plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, TypeVar

from kdiff.names import Registry, with_article
from kdiff.options import Option, with_defaults


class Named(Protocol):
    """What can be chosen by name and options."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Option]: ...


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class Modification:
    """The name of a guidance or an edit, and the values of all its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain values, for results to carry."""
        return {"name": self.name, "options": dict(self.options)}

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{k}={_shown(v)}" for k, v in self.options.items())])

    def __hash__(self) -> int:
        return hash((self.name, frozenset(self.options)))


def _shown(value: Any) -> Any:
    """Of a record of a network, its name."""
    return value.get("name", value) if isinstance(value, Mapping) else value


def chosen(registry: Registry[N], what: str | Modification) -> Modification:
    """`cfg:scale=1.5`, or a `Modification`, with all options of what it names, checked.

    UnknownName or ValueError says what is wrong.
    """
    said = what if isinstance(what, Modification) else _parsed(registry.kind, what)
    found = registry.find(said.name)
    if not isinstance(said.options, Mapping):
        kind = type(said.options).__name__
        raise ValueError(f"the options of {found.name} must be a mapping, not {kind}")
    given = {**found.options, **said.options}
    return Modification(found.name, with_defaults(found.name, found.thing.options, given))


def all_chosen(
    registry: Registry[N], what: str | Modification | Iterable[str | Modification]
) -> tuple[Modification, ...]:
    """One or several of them, in their order. Errors as `chosen`."""
    if isinstance(what, Iterable) and not isinstance(what, str | bytes | Mapping):
        return tuple(chosen(registry, one) for one in what)
    return (chosen(registry, what),)  # type: ignore[arg-type]  # it refuses what is neither


def several(registry: Registry[N], text: str) -> list[Modification]:
    """`cfg:scale=1,1.5` -> those with scale 1 and with scale 1.5: every combination of values.
    Errors as `chosen`."""
    said = _parsed(registry.kind, text)
    values = {key: value.split(",") for key, value in said.options.items()}
    every = (dict(zip(values, some, strict=True)) for some in product(*values.values()))
    return [chosen(registry, Modification(said.name, options)) for options in every]


def _parsed(kind: str, text: str) -> Modification:
    kind = with_article(kind)
    if not isinstance(text, str):
        raise ValueError(f"{kind} is a name such as NAME:key=value, not {text!r:.80}")
    name, *pairs = re.split(r":(?=[^:=]*=)", text)
    options: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        key = key.strip().lower()  # case does not count
        if not (key and value.strip()) or key in options:
            raise ValueError(f"{kind} is NAME:key=value:key=value, each key once, not {text!r:.80}")
        options[key] = value.strip()
    return Modification(name.strip(), options)
