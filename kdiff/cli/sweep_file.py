"""The file of a sweep: options of `kdiff sweep` in YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from kdiff.files import read_yaml


def from_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take from a YAML file what the command line does not say: its keys are the options' names.

    click.UsageError if it is not a mapping of such keys to values or lists of them.
    """
    if path is None:
        return None
    try:
        given = read_yaml(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not isinstance(given, dict):
        raise click.UsageError(f"{path} must have a line `key: value` for each setting")
    parameters = {
        option.removeprefix("--"): parameter
        for parameter in ctx.command.params
        for option in parameter.opts
        if option not in ("--file", "--help", "-h")
    }
    values = {}
    for key, value in given.items():
        if key not in parameters:
            nearest = difflib.get_close_matches(str(key), parameters, n=1, cutoff=0)
            raise click.UsageError(f"{path}: unknown key {key!r:.80}; did you mean {nearest[0]}?")
        try:
            values[parameters[key].name] = as_argument(parameters[key], value)
        except ValueError as error:
            raise click.UsageError(f"{path}: {key} {error}") from error
    ctx.default_map = values
    return path


def as_argument(parameter: click.Parameter, value: Any) -> Any:
    """A value of YAML as the command line would have it: lists joined by commas. ValueError if it
    has no such form."""
    if parameter.name in ("guides", "edits"):
        return as_modifications(value)
    if parameter.name == "prompts":
        return as_prompts(value)
    if parameter.multiple:  # type: ignore[attr-defined]
        if not isinstance(value, dict):
            raise ValueError("takes a mapping, such as eta: 0.5")
        return tuple(f"{key}={as_text(v)}" for key, v in value.items())
    flag = getattr(parameter, "is_flag", False)  # else click would take `num: true` for 1
    return value if flag and isinstance(value, bool) else as_text(value)


def as_modifications(value: Any) -> tuple[str, ...]:
    """A text such as `cfg:scale=1,2`, or a list of such. In a list YAML takes the commas between
    values for its own: a number after a text is another value of it."""
    if not isinstance(value, str | list) or not value:
        raise ValueError("takes a text such as cfg:scale=1,1.5, or a list of such")
    texts: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if texts and isinstance(one, int | float) and "=" in texts[-1]:
            texts[-1] += f",{one}"
        elif isinstance(one, str):
            texts.append(one)
        else:
            raise ValueError(f"takes texts such as cfg:scale=1,1.5, not {one!r:.80}")
    return tuple(texts)


def as_prompts(value: Any) -> tuple[str, ...]:
    """A text, or a list of texts, which may have commas."""
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"takes a text or a list of texts, not {value!r:.80}")
    return tuple(texts)


def as_text(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if one is None:
            raise ValueError(
                "has no value, as `~` alone is none in YAML: leave it out, or quote it"
            )
        if isinstance(one, list | dict):
            raise ValueError("takes a value, or a list of values such as [a, b]")
    return ",".join(map(str, values))
