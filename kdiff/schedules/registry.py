"""What a schedule is, and how one is found by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import numpy as np

from kdiff.names import Found, Registry, left_out

Ends = Literal["sigma_min", "zero", "last is zero", "open"]
Function = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Schedule:
    """A function of (n, sigma_min, sigma_max), which gives `n` sigmas, or for discrete models of
    (n, steps), which gives `n` of the timesteps 0 .. steps - 1. Its other arguments are settings,
    with their defaults.

    `ends`: where its points end before `final` has a say. `sigma_min`: there (or at timestep 0).
    `zero`: its formula goes on to sigma = 0. `last is zero`: it is published as points down to
    sigma_min, of which a run to zero replaces the last by 0. `open`: a step above timestep 0, as
    discrete schedules do by default.
    `flow`: its formula is in the time of a flow, u = sigma / (1 + sigma), unless the setting
    `flow`, which every schedule for any model has, says otherwise.
    """

    function: Function
    aliases: Sequence[str] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ends: Ends | None = None
    flow: bool = False

    def __call__(self, *args: Any, **settings: Any) -> np.ndarray:
        return self.function(*args, **settings)

    @property
    def discrete(self) -> bool:
        return "sigma_min" not in inspect.signature(self.function).parameters

    @property
    def ending(self) -> Ends:
        return self.ends or ("open" if self.discrete else "sigma_min")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, such as rho, and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        own = {p.name: p.default for p in parameters if p.default is not p.empty}
        return own if self.discrete else {**own, "flow": self.flow}

    @property
    def about(self) -> str:
        """What the function's docstring says."""
        return inspect.getdoc(self.function) or ""


def _adopt(registry: Registry[Schedule], name: str, function: Any) -> None:
    if callable(function):
        registry.setdefault(name, Schedule(function))
    elif not isinstance(function, ModuleType):  # which has registered its own
        left_out(registry, name, "a schedule is a function")


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    "kdiff.schedules",
    _adopt,
    refused={
        "automatic": "A1111 means the sampler's own; leave out the schedule for that",
        "use_flow_sigmas": "its points are those of flow with final=sigma_min, the last replaced "
        "by 0: give them as sigmas",
    },
)


def registered(name: str | None = None, **declared: Any) -> Callable[[Function], Function]:
    """A decorator: register the function below as a schedule, under its own name if none is given;
    `declared` are the other fields of `Schedule`."""

    def register(function: Function) -> Function:
        SCHEDULES[name or function.__name__] = Schedule(function, **declared)
        return function

    return register


def find(text: str) -> Found[Schedule]:
    """The schedule that has this name, alias or preset, with the settings that go with it; settings
    may be told too: `flow:shift=3`, `beta:alpha=0.5:beta=0.7`.

    UnknownName if there is none; ValueError if what follows the name are not settings.
    """
    name, *told = text.split(":") if isinstance(text, str) else [text]
    found = SCHEDULES.find(name)
    return Found(found.name, found.thing, {**found.options, **dict(map(_setting, told))})


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = (part.strip() for part in text.partition("="))
    if value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    raise ValueError(f"a schedule's settings are numbers, as in flow:shift=3, not {text!r:.80}")
