"""What a sampler is, what it declares of itself, and how one is found by name."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import typing
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from kdiff.samplers.counts import MOST_STEPS, real_number, whole_number
from kdiff.samplers.plugins import plugins

Final = Literal["zero", "sigma_min"]
NoiseKind = Literal["white", "brownian"]

# A sampler asks (x, sigma), is sent D(x; sigma), and returns x at the last sigma. It only adds,
# subtracts and scales what it is given, so it runs on tensors, numbers and symbols alike.
Coroutine = Generator[tuple[Any, float], Any, Any]
Noise = Callable[[float, float], Any]

# "DPM++ 2M Karras": what A1111 and its users append to a sampler's name is its schedule.
SCHEDULE_SUFFIXES = ("polyexponential", "exponential", "karras", "vp")


class UnknownName(ValueError):
    """No sampler, schedule or option has that name; the message suggests the nearest."""


@dataclass(frozen=True)
class Option:
    """One keyword of a sampler. `low` and `high` bound numbers (inclusive), `choices` the rest."""

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
            or (parsed == math.inf and self.default != math.inf)
            or not (self.low is None or parsed >= self.low)
            or not (self.high is None or parsed <= self.high)
        ):
            raise ValueError(f"{self.name} must be {self.allowed()}, not {value!r}")
        return parsed

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            return words.get(str(value).lower())
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
        kind = "a whole number" if self.type is int else "a number"
        if self.high is not None:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return kind if self.low is None else f"{kind}, at least {self.low:g}"


@dataclass(frozen=True)
class Sampler:
    """A sampler and what it claims.

    `order`: of convergence on the probability-flow ODE (at its `ode` settings), given its options,
    once a multistep method has its history: its first steps are of lower order, which from a
    sigma_max far above the data does not show, and from a low one limits it to 2 (UniPC to 3).
    `calls`: evaluations in a step; `first_calls`: in the first one.
    `noise`: the kind of noise it draws, or None; `ode`: the settings at which it draws none.
    """

    name: str
    function: Callable[..., Coroutine]
    order: Callable[[Mapping[str, Any]], int]
    paper: str
    calls: int = 1
    first_calls: int = 1
    noise: NoiseKind | None = None
    ode: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)

    def with_defaults(self, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All options, checked: UnknownName or ValueError says what is wrong."""
        names = {name.lower(): name for name in self.options}
        given = {}
        for key, value in (options or {}).items():
            if key.lower() not in names:
                raise UnknownName(unknown_name(f"{self.name} option", key, self.options))
            given[names[key.lower()]] = value
        return {
            key: option.parse(given[key]) if key in given else option.default
            for key, option in self.options.items()
        }

    def stochastic(self, options: Mapping[str, Any] | None = None) -> bool:
        """Whether it draws noise with these options."""
        full = self.with_defaults(options)
        return self.noise is not None and any(full[k] != v for k, v in self.ode.items())

    def calls_per_step(self, steps: int, final: Final = "zero") -> list[int]:
        """Evaluations in each of `steps` steps; a last step to sigma = 0 takes just one.
        ValueError unless `steps` is a whole number from 1 to a million."""
        steps = whole_number("steps", steps, 1, MOST_STEPS)
        calls = [self.first_calls, *[self.calls] * (steps - 1)]
        if final == "zero":
            calls[-1] = 1
        return calls

    def nfe(self, steps: int, final: Final = "zero") -> int:
        """The number of function evaluations, exactly, of `steps` >= 1 steps."""
        return sum(self.calls_per_step(steps, final))

    def steps(self, nfe: int, final: Final = "zero") -> int:
        """The most steps that `nfe` evaluations pay for. ValueError if not even one."""
        nfe = whole_number(f"nfe of {self.name}", nfe, self.nfe(1, final), MOST_STEPS)
        return bisect_right(range(1, nfe + 1), nfe, key=lambda steps: self.nfe(steps, final))

    def start(
        self,
        x: Any,
        sigmas: Sequence[float],
        noise: Noise | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Coroutine:
        """The coroutine, ready for a driver: `x` at noise level sigmas[0], decreasing sigmas."""
        keywords = self.with_defaults(options)
        if self.noise is not None:
            keywords["noise"] = noise
        return self.function(x, sigmas, **keywords)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """A registered sampler is pickled by its name, whatever its functions are made of."""
        if REGISTRY.get(self.name) is self:
            return _registered, (self.name,)
        return super().__reduce_ex__(protocol)


REGISTRY: dict[str, Sampler] = {}


def sampler(
    name: str, *, order: int | Callable[[Mapping[str, Any]], int], paper: str, **declared: Any
) -> Callable[[Callable[..., Coroutine]], Callable[..., Coroutine]]:
    """Register the coroutine below under `name`; its keyword-only arguments become its options."""

    def register(function: Callable[..., Coroutine]) -> Callable[..., Coroutine]:
        order_of = order if callable(order) else lambda options: order
        options = {o.name: o for o in _options(function)}
        REGISTRY[name] = Sampler(name, function, order_of, paper, options=options, **declared)
        return function

    return register


def _options(function: Callable[..., Coroutine]) -> list[Option]:
    hints = typing.get_type_hints(function, include_extras=True)
    options = []
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or key == "noise":
            continue
        kind, note = typing.get_args(hints[key])
        choices = typing.get_args(kind)
        kind = type(choices[0]) if choices else kind
        options.append(
            Option(note.help, note.low, note.high, key, kind, parameter.default, choices)
        )
    return options


def _registered(name: str) -> Sampler:
    if name not in REGISTRY:
        plugins("kdiff.samplers")  # they register themselves
    return REGISTRY[name]


@dataclass(frozen=True)
class Resolved:
    """What a name stands for: a sampler, the options and (or None) the schedule that it implies."""

    sampler: Sampler
    options: Mapping[str, Any]
    schedule: str | None


def resolve(name: str) -> Resolved:
    """Find a sampler by any of its names: `dpmpp_2m`, `DPM++ 2M Karras`, `sample_dpmpp_2m`,
    `DPMSolverMultistepScheduler`. Case, spaces and punctuation do not count.

    UnknownName, with the nearest names, if there is none.
    """
    wanted, known = normalise(name), _names()
    if wanted not in known:
        plugins("kdiff.samplers")  # they register themselves
        known = _names()
    for suffix in ("", *SCHEDULE_SUFFIXES):
        stem = wanted.removesuffix(suffix)
        if stem in known:
            found, options = known[stem]
            return Resolved(found, options, suffix or None)
    aliases = chain.from_iterable((*s.aliases, *s.presets) for s in REGISTRY.values())
    raise UnknownName(unknown_name("sampler", name, REGISTRY, aliases))


def normalise(name: str) -> str:
    """`DPM++ 2M` and `sample_dpmpp_2m` -> `dpmpp2m`."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be text, not {name!r}")
    plain = re.sub("[^a-z0-9]", "", name.lower().replace("+", "p"))
    return plain.removeprefix("sample")


def _names() -> dict[str, tuple[Sampler, Mapping[str, Any]]]:
    names: dict[str, tuple[Sampler, Mapping[str, Any]]] = {}
    for s in REGISTRY.values():
        names |= {normalise(alias): (s, {}) for alias in (s.name, *s.aliases)}
        names |= {normalise(alias): (s, options) for alias, options in s.presets.items()}
    return names


def unknown_name(kind: str, name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """One line that suggests the nearest names, or lists the known ones if none is near."""
    known = list(known)
    by_key = {normalise(k): k for k in (*aliases, *known)}
    nearest = difflib.get_close_matches(normalise(name), by_key, n=3, cutoff=0.5)
    if nearest:
        return f"unknown {kind} {name!r}; did you mean {' or '.join(by_key[k] for k in nearest)}?"
    return f"unknown {kind} {name!r}; there is {', '.join(known) or 'none'}"
