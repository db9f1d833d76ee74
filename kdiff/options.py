"""Options: the keywords of samplers, guidance and editing, with their bounds and their help.

An author writes them as keyword-only arguments, and kdiff reads them from the signature:

    def heun(x, sigmas, *, eta: Annotated[float, Option("how much noise", 0, 1)] = 0.0): ...
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from kdiff.counts import real_number
from kdiff.names import UnknownName, unknown_name

WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Option:
    """One keyword. `low` and `high` bound numbers (inclusive), `choices` the rest."""

    help: str
    low: float | None = None
    high: float | None = None
    name: str = ""
    type: type = float
    default: Any = None
    choices: tuple[Any, ...] = ()

    def parse(self, value: Any) -> Any:
        """`value`, which may be text from a command line, in the option's type.

        ValueError with the allowed values if it is none of them.
        """
        try:
            parsed = self._convert(value)
        except (TypeError, ValueError, OverflowError):
            parsed = None
        if (
            parsed is None
            or (self.choices and parsed not in self.choices)
            or (parsed in (math.inf, -math.inf) and parsed != self.default)
            or parsed != parsed  # NaN is between no bounds
            or not (self.low is None or parsed >= self.low)
            or not (self.high is None or parsed <= self.high)
        ):
            raise ValueError(f"{self.name} must be {self.allowed()}, not {value!r:.80}")
        return parsed

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            return WORDS.get(str(value).lower())
        if self.type is object:
            return value
        if self.type is str or isinstance(value, str):
            return self.type(value)
        number = real_number(self.name, value)
        return self.type(number) if self.type(number) == number else None  # not 2.5 as 2

    def allowed(self) -> str:
        """The allowed values in words: `0.0 to 1.0`, `midpoint or heun`."""
        if self.type is bool:
            return "true or false"
        if self.choices:
            return " or ".join(str(choice) for choice in self.choices)
        if self.type is str:
            return "text"
        if self.type is object:
            return self.help
        kind = "a whole number" if self.type is int else "a number"
        if self.low is not None and self.high is not None:
            return f"{kind} from {self.low:g} to {self.high:g}"
        if self.high is not None:
            return f"{kind}, at most {self.high:g}"
        return kind if self.low is None else f"{kind}, at least {self.low:g}"


def options_of(function: Callable[..., Any], given: Container[str] = ()) -> dict[str, Option]:
    """The options of a function: its keyword-only arguments but those that kdiff itself gives.
    TypeError for one that is not `name: Annotated[type, Option(help)]`."""
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key not in given
    }
    hints = _hints(function, parameters)
    options = {}
    for key, parameter in parameters.items():
        kind, *notes = typing.get_args(hints.get(key)) or [Any]
        if not notes or not isinstance(notes[0], Option):
            raise TypeError(f"{function.__name__}: write {key}: Annotated[float, Option('help')]")
        choices = typing.get_args(kind)
        options[key] = replace(
            notes[0],
            name=key,
            type=type(choices[0]) if choices else typing.cast(type, kind),
            default=parameter.default,
            choices=choices,
        )
    return options


def _hints(function: Callable[..., Any], parameters: Iterable[str]) -> dict[str, Any]:
    """The types of these parameters: others may name what only type checkers import."""
    function = inspect.unwrap(function)
    known = getattr(function, "__annotations__", {})
    wanted = {key: known.get(key, Any) for key in parameters}
    holder = SimpleNamespace(__annotations__=wanted)
    return typing.get_type_hints(holder, getattr(function, "__globals__", None), None, True)


def with_defaults(
    owner: str, options: Mapping[str, Option], given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The values of all options of `owner`, the given ones checked; case does not count in names.

    UnknownName or ValueError says what is wrong.
    """
    names = {name.lower(): name for name in options}
    values = {}
    for key, value in (given or {}).items():
        if not isinstance(key, str):
            raise ValueError(f"the name of a {owner} option must be text, not {key!r:.80}")
        if key.lower() not in names:
            raise UnknownName(unknown_name(f"{owner} option", key, options))
        values[names[key.lower()]] = value
    return {
        key: option.parse(values[key]) if key in values else option.default
        for key, option in options.items()
    }
