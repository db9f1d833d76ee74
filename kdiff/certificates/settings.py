"""Which settings of a sampler are certified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdiff.options import Option
from kdiff.samplers import Sampler

DEFAULT = "default"
# What samplers whose default is the ODE call the noise that they add, and how much is certified.
NOISY = {"S_churn": 8.0, "eta": 1.0}

LEARNED = "learned"  # what a network answers beside D, as no exact model does
MOST_ORDER = 4  # of an option that is called so: rounding is near where higher ones show


@dataclass(frozen=True)
class Setting:
    """All options, under a name: `default`, that of a preset, or those that differ."""

    label: str
    options: Mapping[str, Any]


def settings(sampler: Sampler) -> list[Setting]:
    """The default, with noise and without; the presets; and each value of each option that is a
    choice, or is called order, one at a time."""
    found: list[Setting] = []
    for label, given in _given(sampler):
        full = sampler.with_defaults(given)
        if all(full != other.options for other in found):
            found.append(Setting(label, full))
    return found


def _given(sampler: Sampler) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield DEFAULT, {}
    if sampler.ode is not None:
        noisy = {key: NOISY[key] for key in sampler.ode if key in NOISY}
        yield _label(noisy), noisy
        yield _label(sampler.ode), sampler.ode
    yield from sampler.presets.items()
    for name, option in sampler.options.items():
        for value in choices(option):
            yield _label({name: value}), {name: value}


def choices(option: Option) -> list[Any]:
    """The values that are certified one by one."""
    if option.type is bool:
        return [True, False]
    if option.choices:
        return [value for value in option.choices if value != LEARNED]
    if option.name == "order" and option.low is not None and option.high is not None:
        return list(range(int(option.low), min(int(option.high), MOST_ORDER) + 1))
    return []


def _label(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items()) or DEFAULT
