"""`kdiff convert`: any checkpoint whose network kdiff can build, in kdiff's own format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from kdiff.checkpoints import native
from kdiff.cli.choices import DTYPES, load_with, settings_option
from kdiff.cli.grid_options import CONTEXT, usage_errors
from kdiff.cli.outputs import check_free
from kdiff.cli.paths import UserPath
from kdiff.model_check import named, not_finite
from kdiff.models import find_model


@click.command("convert", context_settings=CONTEXT)
@click.argument("source")
@click.argument("target", type=UserPath(dir_okay=False))
@click.option(
    "--dtype", type=click.Choice(list(DTYPES)), default="float16", help="The dtype of the weights."
)
@click.option("--overwrite", is_flag=True, help="Write even if TARGET is there.")
@settings_option
def command(
    source: str, target: Path, dtype: str, overwrite: bool, settings: Sequence[str]
) -> None:
    """Write the checkpoint SOURCE to TARGET, a .safetensors file that needs no settings.

    Only what sampling needs is kept: the network (its EMA, if there is one), the preconditioner,
    the shape and the classes.
    """
    if target.suffix != ".safetensors":
        raise click.UsageError(f"the target must be a .safetensors file, not {target.name}")
    check_free(target, overwrite)
    with usage_errors():
        model = load_with(find_model(source), settings)
        config = native.describe(model)
    broken = not_finite(model.network)
    if broken:
        click.echo(f"Warning: weights are not finite {named(broken)}", err=True)
    try:
        with usage_errors():
            native.save(target, model.network.state_dict(), config, DTYPES[dtype])
    except OSError as error:
        raise click.UsageError(f"cannot write {target}: {error.strerror}") from error
    click.echo(f"{target}: {config['network']['name']}, {dtype}, {target.stat().st_size:,} bytes")
