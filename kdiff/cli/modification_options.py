"""--guide and --edit, which change a run, for every command that has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import click

from kdiff.cli.grid_options import usage_errors
from kdiff.editing import EDITS
from kdiff.guidance import GUIDANCE, check_null_class, guided
from kdiff.modifications import Modification, chosen
from kdiff.names import Registry, UnknownName, with_article

T = TypeVar("T")
SEE_GUIDANCE, SEE_EDITS = "kdiff list guidance", "kdiff list edits"


def modification_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --guide and --edit; the command gets them as `guides`, for `guided_model`, and `edits`,
    for `choose_plan`: lists of `Modification`."""
    guide = click.option(
        "--guide",
        "guides",
        multiple=True,
        callback=_parsed_guides,
        metavar="NAME:KEY=VALUE",
        help="Guide the model, such as cfg:scale=2; may be repeated, the first one innermost; see "
        f"`{SEE_GUIDANCE}`.",
    )
    edit = click.option(
        "--edit",
        "edits",
        multiple=True,
        callback=_parsed_edits,
        metavar="NAME:KEY=VALUE",
        help=f"Edit the sampler's course; may be repeated, likewise; see `{SEE_EDITS}`.",
    )
    return guide(edit(command))


def _parsed_guides(
    ctx: click.Context, param: click.Parameter, texts: Sequence[str]
) -> list[Modification]:
    with usage_errors(SEE_GUIDANCE):
        return [said(chosen, GUIDANCE, text) for text in texts]


def _parsed_edits(
    ctx: click.Context, param: click.Parameter, texts: Sequence[str]
) -> list[Modification]:
    with usage_errors(SEE_EDITS):
        return [said(chosen, EDITS, text) for text in texts]


def said(read: Callable[[Registry[Any], str], T], registry: Registry[Any], text: str) -> T:
    """`read(registry, text)`, and its errors. click.UsageError if `text` is of the other kind: an
    edit has memory, and so options that a guidance of the same name cannot have."""
    try:
        return read(registry, text)
    except UnknownName:
        other, option = (EDITS, "--edit") if registry is GUIDANCE else (GUIDANCE, "--guide")
        with suppress(ValueError):
            read(other, text)
            kind = with_article(other.kind)
            raise click.UsageError(
                f"{text:.80} is {kind}: give it as {option} {text:.80}"
            ) from None
        raise


def guided_model(model: Any, guides: Sequence[Modification], labels: Sequence[int] | None) -> Any:
    """The model with all of --guide. click.UsageError if it cannot be guided so, or if one needs
    the class of each image, and an image has none."""
    with usage_errors(SEE_GUIDANCE):
        made = guided(model, guides)
        check_null_class(model, guides)
    for guide in guides:
        needs_class = GUIDANCE.find(guide.name).thing.needs_class
        if needs_class and labels is not None and min(labels) < 0:
            raise click.UsageError(
                f"--guide {guide.name} needs a class for each image: leave out the class none"
            )
    return made
