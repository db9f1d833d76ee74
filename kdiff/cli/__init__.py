"""The command line: one command a file, each imported only when it is asked for."""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

from kdiff import __version__
from kdiff.cli.errors import close_output, open_streams, told, wants_traceback
from kdiff.cli.memory import keep_freed_memory
from kdiff.interrupt import STATUS, ExitAtOnce

COMMANDS = {
    "sample": "Make pictures with a model.",
    "eval-fid": "Compute FID and other metrics, for a model's images or for any others.",
    "sweep": "Evaluate samplers at several step counts; continues where it stopped.",
    "report": "Make tables, curves and a page from a sweep.",
    "ref": "Make, list and show the statistics that images are compared with.",
    "inspect": "Show what a checkpoint is, and check that it denoises.",
    "convert": "Convert a checkpoint to kdiff's own format.",
    "list": "List samplers, schedules, guidance, models, metrics and more.",
    "explain": "Show exactly what a sampler computes.",
    "certify": "Measure whether samplers are what they claim.",
}


class Commands(click.Group):
    """Each command is imported when it is asked for, and every error is one line."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        open_streams()
        try:
            return super().main(*arguments, **settings)
        except Exception as error:  # click's own are told by now, and have ended the process
            if wants_traceback():
                raise
            close_output(error)
            click.ClickException(told(error)).show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(STATUS)
        except click.ClickException:
            if wants_traceback():
                traceback.print_exc()
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        with ExitAtOnce():
            return import_module(f"kdiff.cli.{name.replace('-', '_')}_command").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdiff")
def main() -> None:
    """Sample diffusion models with any sampler, and measure what comes out."""
    keep_freed_memory()
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # for people: no source line
