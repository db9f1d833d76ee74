"""Paths on the command line and in a sweep's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from kdiff.files import user_path


class UserPath(click.Path):
    """A `Path` with `~` expanded, which a shell does not do in `--out=~/x`, nor anything in a file.
    One that cannot be a path is refused."""

    def __init__(self, **checks: bool):
        super().__init__(path_type=Path, **checks)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        try:
            return super().convert(user_path(value), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def not_empty(ctx: click.Context, param: click.Parameter, text: str) -> str:
    """For an option that takes a path or a name: refused if empty, even where it is not used."""
    if not text.strip():
        raise click.BadParameter("it is empty", ctx=ctx, param=param)
    return text
