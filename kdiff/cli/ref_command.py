"""`kdiff ref`: the statistics that FID compares with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from kdiff.cli.choices import choose_device
from kdiff.cli.evaluating import data_option, progress_bar
from kdiff.cli.grid_options import CONTEXT, usage_errors
from kdiff.cli.list_command import table
from kdiff.cli.outputs import check_free, writing
from kdiff.cli.paths import UserPath
from kdiff.eval.features import DEFAULT_FEATURES, DEFAULT_RESIZE, feature_network
from kdiff.eval.features.resize import MODES
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.images.streaming import own_share
from kdiff.eval.ranks import ranks
from kdiff.eval.references import (
    Label,
    Reference,
    find_reference,
    make_reference,
    own_path,
    save_reference,
    stored_references,
)
from kdiff.files import to_json, whole_file

HASH = 12  # characters of a hash that a table shows

overwriting = click.option("--overwrite", is_flag=True, help="Replace the file, if there is one.")
features_option = click.option("--features", default=DEFAULT_FEATURES, help="Feature network.")
resize_option = click.option(
    "--resize", type=click.Choice(list(MODES)), help=f"Of inception.  [default: {DEFAULT_RESIZE}]"
)


@click.group("ref", context_settings=CONTEXT)
def command() -> None:
    """List, make and show reference statistics."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def list_(as_json: bool) -> None:
    """Show the references that have a name: those that come with kdiff, and your own."""
    with usage_errors():
        stored = stored_references()
    if as_json:
        rows = [{**asdict(label), "file": str(path)} for path, label in stored.items()]
        click.echo(to_json(rows))
    else:
        columns = ["name", "N", "resize", "features", "weights", "where"]
        click.echo(table([_row(path, label) for path, label in stored.items()], columns))


def _row(path: Path, label: Label) -> dict[str, Any]:
    row = {
        "name": label.name,
        "N": label.n,
        "resize": label.resize,
        "features": label.features,
        "weights": label.weights and label.weights[:HASH],
        "where": path,
    }
    return {key: value or "-" for key, value in row.items()}


@command.command("make")
@click.argument("name")
@click.option("--images", required=True, help="Folder, .zip, .npz[:KEY], .npy, or cifar10:train.")
@data_option
@features_option
@resize_option
@click.option("--weights", type=UserPath(), help="Inception's weights file.")
@click.option("--spatial", is_flag=True, help="Add what sFID needs; the file is twice as large.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: cuda if there is one]")
@click.option("--batch", type=int, default=64, help="Images read together.")
@click.option("--out", type=UserPath(), help="File.  [default: kept under its name]")
@overwriting
def make(
    name: str,
    images: str,
    data: Path | None,
    features: str,
    resize: str | None,
    weights: Path | None,
    spatial: bool,
    device: str | None,
    batch: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Compute the statistics of images and keep them as NAME, for `--ref NAME`.

    Under torchrun, the processes share the images.
    """
    if batch < 1:
        raise click.UsageError(f"--batch must be at least 1, not {batch}")
    with usage_errors():
        path = out or own_path(name, features, _mode(features, resize))
        if path.suffix != ".safetensors":
            raise click.UsageError(f"--out writes a .safetensors, not {path}; see `kdiff ref show`")
        check_free(path, overwrite)
        pictures = open_pictures(images, data)
    where = choose_device(device)
    first = ranks()[0] == 0
    for note in pictures.notes if first else ():
        click.echo(note, err=True)
    with usage_errors(), progress_bar(len(own_share(len(pictures), batch))) as bar:
        network = feature_network(features, resize=resize, weights=weights, device=where)
        reference = make_reference(name, pictures, network, batch, bar.update, spatial)
    if not first:
        return
    with writing(path):
        save_reference(reference, path)
    click.echo(f"{name}: {len(pictures)} images of {pictures.name}, in {path}")


@command.command("show")
@click.argument("name")
@features_option
@resize_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--npz",
    type=UserPath(),
    help="Write mu and sigma, float64, as pytorch-fid and others read them.",
)
@overwriting
def show(
    name: str,
    features: str,
    resize: str | None,
    as_json: bool,
    npz: Path | None,
    overwrite: bool,
) -> None:
    """Show what NAME is: anything that `--ref` takes, other than images."""
    with usage_errors():
        reference = find_reference(name, features, _mode(features, resize))
    if not isinstance(reference, Reference):
        raise click.UsageError(f"{name} is images, not statistics: see `kdiff ref make`")
    if npz is not None:
        check_free(npz, overwrite)
        with writing(npz):
            _write_npz(reference, npz)
    record = {
        **asdict(reference.label),
        "dimensions": len(reference.mean),
        "trace": float(reference.cov.trace()),
        "spatial": reference.spatial is not None,
        "sha256": reference.sha256,
    }
    if as_json:
        click.echo(to_json(record))
    else:
        known = {key: "unknown" if value is None else value for key, value in record.items()}
        click.echo("\n".join(f"{key:10}  {value}" for key, value in known.items()))


def _write_npz(reference: Reference, path: Path) -> None:
    """Write `mu, sigma`, and for sFID `mu_s, sigma_s`, guided-diffusion's names; the file is whole
    or not there at all."""
    arrays = {"mu": reference.mean, "sigma": reference.cov}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean, "sigma_s": reference.spatial.cov}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _mode(features: str, resize: str | None) -> str | None:
    return DEFAULT_RESIZE if features == DEFAULT_FEATURES and resize is None else resize
