"""EDM's pickles (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative
Models"): `network-snapshot-*.pkl` and the published ones.

The preconditioner's class and settings come from the pickle, as does the network's: DDPM++ and
NCSN++ (`SongUNet`), ADM (`DhariwalUNet`). Nothing in the pickle runs; see `unpickle`. Classes have
no names there, so they are called 0, 1, ..; index -1 is the null class, all zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import MissingSetting
from kdiff.checkpoints.pickle_machine import Record
from kdiff.checkpoints.snapshot import build, missing, number, preconditioner
from kdiff.checkpoints.unpickle import Pickle, opened
from kdiff.denoiser import Denoiser
from kdiff.networks import learns_variance
from kdiff.networks.dhariwal_unet import DhariwalUNet
from kdiff.networks.song_unet import SongUNet
from kdiff.preconditioners import PRECONDS as ROWS
from kdiff.preconditioners import Precond
from kdiff.preconditioners import precond as make

NAME = "edm"
NETWORKS = ("SongUNet", "DhariwalUNet")


def _vp(net: Record) -> Precond:
    return make(
        "vp",
        beta_d=number(net, "beta_d"),
        beta_min=number(net, "beta_min"),
        steps=int(number(net, "M")),
        eps_t=number(net, "epsilon_t"),
    )


def _ve(net: Record) -> Precond:
    return make("ve", sigma_min=number(net, "sigma_min"), sigma_max=number(net, "sigma_max"))


def _iddpm(net: Record) -> Precond:
    c1, c2, steps = number(net, "C_1"), number(net, "C_2"), int(number(net, "M"))
    if not 0 < steps <= 100_000:
        raise ValueError(f"its iDDPMPrecond claims {steps:,} steps")
    return make("iddpm", c1=c1, c2=c2, steps=steps, round=True)


def _edm(net: Record) -> Precond:
    return make(
        "edm",
        sigma_data=number(net, "sigma_data"),
        sigma_min=max(0.002, number(net, "sigma_min")),  # 0 and infinity, as published: EDM's
        sigma_max=min(80.0, number(net, "sigma_max")),  # sampler then has 0.002 to 80
    )


PRECONDS: dict[str, Callable[[Record], Precond]] = {
    "EDMPrecond": _edm,
    "VPPrecond": _vp,
    "VEPrecond": _ve,
    "iDDPMPrecond": _iddpm,
}


def detect(path: Path) -> str | None:
    """None if the file is a pickle with one of EDM's preconditioners or networks."""
    return missing(path, PRECONDS, NETWORKS)


def load(
    path: Path,
    dtype: torch.dtype | None = torch.float32,
    *,
    precond: Precond | None = None,
    shape: Sequence[int] | None = None,
) -> Denoiser:
    """The denoiser in a pickle of EDM's, on the CPU, in `dtype` (None: the file's). `precond` is
    needed if EDM does not have the network's preconditioner, and `shape` if the preconditioner has
    none. ValueError if the pickle is damaged or has anything that such a pickle does not
    need."""
    with opened(path) as pickle:
        net = preconditioner(pickle.value)
        if precond is None and net.name not in PRECONDS:
            raise MissingSetting(
                f"its preconditioner, {net.name[:80]}, is not one of EDM's: give precond= one of "
                f"{', '.join(ROWS)}"
            )
        row, told = (precond, "as told") if precond else _row(net)
        if shape is None:
            size, channels = int(number(net, "img_resolution")), int(number(net, "img_channels"))
            shape = (channels, size, size)
        network = _network(pickle, net, dtype)
    config: Any = network.config
    return Denoiser(
        network,
        row,
        shape=shape,
        classes=[str(i) for i in range(network.label_dim)],
        learned_variance=learns_variance(config, shape),
        name=Path(path).stem,
        facts={
            "format": "EDM pickle",
            "parameterisation": told,
        },
    )


def _row(net: Record) -> tuple[Precond, str]:
    """The preconditioner that the pickle describes, and how it was found."""
    row = PRECONDS[net.name](net)
    settings = ", ".join(
        f"{key} {value:g}" for key, value in (row.config or {}).items() if key != "name"
    )
    return row, f"{row.name} ({settings}): the pickle's {net.name}"


def _network(pickle: Pickle, net: Record, dtype: torch.dtype | None) -> SongUNet | DhariwalUNet:
    model = net.state["_modules"]["model"]
    if model.name == "DhariwalUNet":
        return build(pickle, model, DhariwalUNet, dtype)
    if model.name != "SongUNet":
        raise ValueError(f"its network is a {model.name[:80]}, not a SongUNet or DhariwalUNet")
    given = model.state["_init_kwargs"]
    decoder, encoder = given.pop("decoder_type", "standard"), given.get("encoder_type", "standard")
    if decoder != "standard" or encoder not in ("standard", "residual"):
        raise ValueError("its SongUNet has a 'skip' encoder or decoder, which kdiff does not have")
    return build(pickle, model, SongUNet, dtype, channel_mult=[1, 2, 2, 2])
