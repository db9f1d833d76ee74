"""--prompt and what goes with it, for every command that makes pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from kdiff.cli.grid_options import usage_errors
from kdiff.cli.paths import UserPath
from kdiff.files import read_text
from kdiff.guidance.negative import leads_away, needs_negative
from kdiff.hashes import sha256_of_file
from kdiff.latent import check_takes_prompts, takes_prompts
from kdiff.modifications import Modification
from kdiff.text import Request

# The parameters of these options, as click names them.
OF_PROMPTS = ("prompts", "prompt_file", "negative_prompt", "width", "height", "distilled_guidance")


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --prompt to --distilled-guidance; the command gets them as `request`, for `settled`: a
    `Request`, without prompts if there are only other options, and None if there are none."""

    @click.option(
        "--prompt",
        "prompts",
        multiple=True,
        metavar="TEXT",
        help="What the pictures show, of a model of prompts; repeated: pictures in turn. Empty: "
        "nothing in particular.",
    )
    @click.option(
        "--prompts",
        "prompt_file",
        type=UserPath(exists=True, dir_okay=False),
        metavar="FILE",
        help="Instead: a text file with a prompt a line.",
    )
    @click.option("--negative-prompt", metavar="TEXT", help="What guidance leads away from.")
    @click.option("--width", type=int, help="Of the pictures, in pixels.  [default: the model's]")
    @click.option("--height", type=int, help="Likewise.")
    @click.option(
        "--distilled-guidance",
        type=float,
        help="The scale that a network with distilled guidance is told.  [default: Flux: 3.5]",
    )
    @wraps(command)
    def asking(*args: Any, **settings: Any) -> Any:
        return command(*args, request=_request(*map(settings.pop, OF_PROMPTS)), **settings)

    return asking


def _request(prompts: Sequence[str], file: Path | None, *others: Any) -> Request | None:
    if prompts and file is not None:
        raise click.UsageError("give only one of --prompt and --prompts")
    if not prompts and file is None and not any(other is not None for other in others):
        return None
    asked = Request(tuple(prompts), *others)
    if file is None:
        return asked
    with usage_errors():
        return replace(asked, prompts=read_prompts(file), file=sha256_of_file(file))


def read_prompts(file: Path) -> tuple[str, ...]:
    """One a line; lines without text do not count. ValueError if there is none."""
    lines = (line.strip() for line in read_text(file).split("\n"))
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise ValueError(f"{file} has no prompts: write one a line")
    return prompts


def settled(
    model: Any, request: Request | None, *several: Sequence[Modification]
) -> tuple[Any, Request | None]:
    """The model for images of the size that is asked for, and the request with all that the model
    says by default. `several`: the guidance of each run, that of its edits included: a negative
    prompt needs one that leads away from it. click.UsageError if they do not go together."""
    if request is None:
        _check_needs_none(model)
        return model, None
    with usage_errors():
        try:
            check_takes_prompts(model)
        except ValueError as error:
            raise ValueError(f"{error}; leave out --prompt and what goes with it") from error
        if not request.prompts:
            _check_needs_none(model)
        if request.negative is not None and not any(map(leads_away, several)):
            raise ValueError(
                "--negative-prompt is for guidance: add --guide cfg:scale=7.5, or leave it out"
            )
        if request.negative is None:
            needing = next(needs_negative(one for guides in several for one in guides), None)
            if needing:
                raise ValueError(f"the guidance {needing} needs --negative-prompt")
        known = request.settled(model)
        return known.fit(model), known


def _check_needs_none(model: Any) -> None:
    if takes_prompts(model):
        raise click.UsageError(
            f"{model.name} makes pictures of prompts: give --prompt TEXT, or --prompts FILE "
            '(--prompt "" is for nothing in particular)'
        )
    why = getattr(model, "facts", {}).get("prompts")
    if why:
        raise click.UsageError(f"{model.name} needs prompts, and cannot take any: {why}")
