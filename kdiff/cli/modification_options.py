"""--guide, --guidance, --negative-label and --edit, which change a run, for the commands that have
them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

import click

from kdiff.cli.errors import told
from kdiff.cli.grid_options import usage_errors
from kdiff.editing import EDITS, guiding
from kdiff.guidance import GUIDANCE, guided
from kdiff.guidance.negative import check_leads_away, negative_classes
from kdiff.modifications import Modification, chosen
from kdiff.names import Registry, UnknownName, with_article

T = TypeVar("T")
SEE_GUIDANCE, SEE_EDITS = "kdiff list guidance", "kdiff list edits"
SHORT = "cfg"  # what --guidance is short for, by its scale


def modification_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all four; the command gets `guides`, for `guided_model`, and `edits`, for `choose_plan`,
    lists of `Modification`; and `negative_label`, for `choose_negative`."""

    @wraps(command)
    def with_guides(*given: Any, guides: Any, guidance: str | None, **others: Any) -> Any:
        every = [*short_form(guidance, guides), *guides]
        return command(*given, guides=every, **others)

    edit = click.option(
        "--edit",
        "edits",
        multiple=True,
        callback=_parsed_edits,
        metavar="NAME:KEY=VALUE",
        help=f"Edit the sampler's course; may be repeated, likewise; see `{SEE_EDITS}`.",
    )
    negative = click.option(
        "--negative-label",
        help="Class to lead away from, instead of no class, or a list to repeat.",
    )
    return guide_options(negative(edit(with_guides)))


def guide_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --guide, of which the command gets `guides`, and --guidance, for `short_form`."""
    guide = click.option(
        "--guide",
        "guides",
        multiple=True,
        callback=_parsed_guides,
        metavar="NAME:KEY=VALUE",
        help="Guide the model, such as cfg:scale=2; may be repeated, the first one innermost; see "
        f"`{SEE_GUIDANCE}`.",
    )
    guidance = click.option(
        "--guidance",
        metavar="SCALE",
        help="Short for --guide cfg:scale=SCALE, which stands before all others; 1 is none.",
    )
    return guide(guidance(command))


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


def short_form(scale: str | None, guides: Sequence[Modification]) -> list[Modification]:
    """What --guidance says, if it is given. click.UsageError if its scale is not a number, or if
    --guide says the same thing."""
    if scale is None:
        return []
    if any(one.name == SHORT for one in guides):
        raise click.UsageError(
            f"--guidance is short for --guide {SHORT}:scale={scale}: give only one of the two"
        )
    try:
        return [chosen(GUIDANCE, Modification(SHORT, {"scale": scale}))]
    except ValueError as error:
        raise click.UsageError(f"--guidance: {error}") from error


def guided_model(model: Any, guides: Sequence[Modification]) -> Any:
    """The model with all of `guides`. click.UsageError if it cannot be guided so."""
    try:
        with usage_errors(SEE_GUIDANCE):
            return guided(model, guides)
    except OSError as error:
        raise click.UsageError(told(error)) from error


def choose_negative(
    model: Any,
    guides: Sequence[Modification],
    edits: Sequence[Modification],
    labels: Sequence[int] | None,
    text: str | None,
) -> dict[str, list[int]]:
    """The condition that --negative-label gives to images of the classes `labels`, if it is given.
    click.UsageError if it has no effect or is not a class; also, without it, if the model has no
    null class, or a guide needs the class of each image, and an image has none."""
    asking = [*guides, *guiding(edits)]
    with usage_errors():
        if text is not None:
            check_leads_away([asking])
        negative = negative_classes(model, asking, text)
    for one in asking:
        needs_class = GUIDANCE.find(one.name).thing.needs_class
        if needs_class and labels is not None and min(labels) < 0:
            raise click.UsageError(
                f"{one.name} needs a class for each image: leave out the class none"
            )
    if not negative:
        return {}
    each = [negative[i % len(negative)] for i in range(len(labels or ()))]
    return {"negative_class_labels": each}
