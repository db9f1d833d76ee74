"""Other projects' reference statistics: `.npz` with `mu, sigma`, and clean-fid's by name."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from kdiff.data_folder import data_folder
from kdiff.eval.images.arrays import ARRAYS, from_npz
from kdiff.eval.images.npy import Members
from kdiff.eval.images.source import Pictures
from kdiff.eval.statistics.gaussian import Gaussian
from kdiff.files import whole_file

CLEAN_FID_URL = "https://www.cs.cmu.edu/~clean-fid/stats/"


class Statistics(NamedTuple):
    """The moments of FID's features and, in guided-diffusion's files, of sFID's."""

    gaussian: Gaussian
    spatial: Gaussian | None


def read_npz(path: Path) -> Statistics | None:
    """`mu, sigma` (TTUR, pytorch-fid, EDM, guided-diffusion) and `mu_s, sigma_s` if they are there;
    None without `mu, sigma`. ValueError if the file is damaged or needs unpickling, or if the
    arrays are not a mean and its covariance."""
    members = Members(path)
    if not {"mu", "sigma"} <= set(members):
        _check_names(members)
        return None
    spatial = {"mu_s", "sigma_s"} <= set(members)
    return Statistics(
        _gaussian(path, members.read("mu"), members.read("sigma")),
        _gaussian(path, members.read("mu_s"), members.read("sigma_s")) if spatial else None,
    )


def images_beside(path: Path) -> Callable[[], Pictures] | None:
    """What opens the images that are in the same `.npz`, as in guided-diffusion's; None if there
    are none."""
    key = next((key for key in ARRAYS if key in Members(path)), None)
    return None if key is None else partial(from_npz, path, key)


def _check_names(members: Members) -> None:
    """ValueError if these are neither `mu` and `sigma` nor images."""
    found = list(members)
    if found and not any(members.header(key).dtype == np.uint8 for key in found):
        raise ValueError(
            f"{members.path} has {', '.join(found)}; statistics are a mean `mu` and a covariance "
            "`sigma`: np.savez(FILE, mu=.., sigma=..) of a file's own names, or of its features "
            "f, mu=f.mean(0), sigma=np.cov(f.T)"
        )


def _gaussian(path: Path, mean: np.ndarray, cov: np.ndarray) -> Gaussian:
    """ValueError, naming the file, if they are not a mean `[d]` and its covariance `[d, d]`."""
    try:
        return Gaussian.of_file(mean, cov)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def clean_fid_file(text: str, resize: str | None) -> Path:
    """The file of `NAME-SPLIT-RESOLUTION` (`cifar10-train-32`), or of statistics that clean-fid
    made under `NAME` on this machine, for a resize mode: one that the installed clean-fid has, or
    that was downloaded before, or is now, whole or not at all. ValueError if it cannot be had."""
    if not re.fullmatch(r"[\w.-]+", text):
        raise ValueError(
            f"clean-fid's statistics are named as clean-fid:cifar10-train-32, not {text!r}"
        )
    parts = re.fullmatch(r"(.+)[-_]([a-z0-9]+)[-_]([0-9]+)", text.lower())
    name, split, size = parts.groups() if parts else (text.lower(), "custom", "na")
    file = f"{name}_{resize}_{split}_{size}.npz"
    folders = [*_installed_folders(), data_folder() / "clean-fid"]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    if split == "custom":
        where = " or ".join(map(str, folders))
        raise ValueError(
            f"there are no statistics {file} in {where}; see clean-fid:cifar10-train-32"
        )
    _download(file, folders[-1] / file)
    return folders[-1] / file


def _installed_folders() -> list[Path]:
    package = importlib.util.find_spec("cleanfid")
    return [Path(package.origin).with_name("stats")] if package and package.origin else []


def _download(file: str, to: Path) -> None:
    try:
        with urlopen(CLEAN_FID_URL + file, timeout=30) as response:
            to.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(to) as temporary:
                with temporary.open("wb") as begun:
                    shutil.copyfileobj(response, begun)
                if read_npz(temporary) is None:
                    raise ValueError("no mu and sigma in it")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError) and error.code == 404:
            raise ValueError(f"clean-fid has no statistics {file} at {CLEAN_FID_URL}") from error
        reason = "it came incomplete" if isinstance(error, ValueError) else error
        raise ValueError(
            f"{CLEAN_FID_URL}{file} could not be downloaded ({reason}): put it into {to.parent}"
        ) from error
