"""The command line: one command a file, each read only when it is asked for."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import version

import click

from kdiff.cli.memory import keep_freed_memory

COMMANDS = {
    "sample": "Make pictures with a model.",
    "eval-fid": "Compute FID and more, of a model's images or of any.",
    "sweep": "Evaluate samplers over steps, and go on where it stopped.",
    "report": "Tables, curves and a page of what a sweep found.",
    "ref": "The statistics that images are compared with.",
    "inspect": "What a checkpoint is, and whether it denoises.",
    "convert": "Write a checkpoint of another format as kdiff's own.",
    "list": "Show the samplers, schedules, models, formats and metrics there are.",
    "explain": "Show exactly what a sampler computes.",
}


class LazyGroup(click.Group):
    """Help for the group without importing torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"kdiff.cli.{name.replace('-', '_')}_command").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("kdiff"), prog_name="kdiff")
def main() -> None:
    """Sample diffusion models with any sampler, and measure what comes out."""
    keep_freed_memory()
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # for people: no source line
