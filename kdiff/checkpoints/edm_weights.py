"""The tensors alone of EDM's and EDM2's networks, as torch.save or safetensors have them, in any
wrapper (see `unwrap`): what others train with NVIDIA's code, and kdiff's own networks.

The architecture is read from names and shapes. What the network predicts leaves no trace there:
`precond` must say it. EDM2 has only one, so it is assumed there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdiff.checkpoints import MissingSetting, torch_zip, unwrap
from kdiff.denoiser import Denoiser
from kdiff.networks import at_most, learns_variance
from kdiff.networks.dhariwal_unet import DhariwalUNet
from kdiff.networks.edm2_unet import EDM2UNet
from kdiff.networks.song_unet import SongUNet
from kdiff.preconditioners import PRECONDS, Precond, edm

NAME = "edm-weights"
EDM = ("map_layer0.weight", "map_layer1.weight")
EDM2 = ("emb_noise.weight", "emb_fourier.freqs", "out_conv.weight")
_INNER = {EDM: "model.", EDM2: "unet."}  # the network within its preconditioner
_FIXED = (
    "resample_filter",
    "map_noise.freqs",
    "emb_fourier.freqs",
    "emb_fourier.phases",
)  # buffers
_FILTERS = {2: [1, 1], 4: [1, 3, 3, 1]}

_Shapes = Mapping[str, Sequence[int]]


def detect(path: Path) -> str | None:
    """None if a network of these names was saved."""
    try:
        saved = unwrap.read(path)
    except ValueError as error:
        return str(error)
    return None if _marks(saved) else f"no {EDM[0]}, and no {EDM2[0]}"


def load(
    path: Path,
    *,
    precond: Precond | None = None,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser, on the CPU, in `dtype` (None: the file's). `weights` chooses among several
    networks (see `unwrap`). `precond` is needed except for EDM2.

    ValueError says what is missing, or not supported.
    """
    saved = unwrap.read(path)
    marks = _marks(saved)
    if marks is None:
        raise ValueError(f"no {EDM[0]}, and no {EDM2[0]}")
    chosen, weighted = unwrap.take(saved, marks, weights, inner=_INNER[marks], fixed=_FIXED)
    shapes = {key: tuple(value.shape) for key, value in chosen.tensors.items()}
    try:
        kind, settings = _architecture(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"a network of this kind has other tensors: {error}") from error
    told = "as told"
    if precond is None and kind is EDM2UNet:
        precond, told = edm(), "EDM's, sigma_data 0.5, assumed: EDM2 has no other"
    if precond is None:
        raise MissingSetting(
            f"the file has a network's tensors alone (a {kind.__name__}), and does not say what it "
            f"predicts: give precond= one of {', '.join(PRECONDS)}"
        )
    logvar = {key for key in chosen.tensors if key.startswith("logvar_")}  # only training's
    tensors = {key: value for key, value in chosen.tensors.items() if key not in logvar}

    def make() -> nn.Module:
        with at_most(len(tensors)):
            return kind(**settings)

    size = settings["img_resolution"]
    shape = (settings["img_channels" if kind is EDM2UNet else "in_channels"], size, size)
    return Denoiser(
        torch_zip.fill(path, make, tensors, dtype),
        precond,
        shape=shape,
        classes=[str(i) for i in range(settings["label_dim"])],
        learned_variance=learns_variance(settings, shape),
        name=path.stem,
        facts={
            "format": "a state dict of EDM's or kdiff's networks",
            **weighted,
            "network": f"{kind.__name__}, by the tensors' names and shapes",
            "parameterisation": told,
        },
    )


def _marks(saved: Any) -> tuple[str, ...] | None:
    return next((m for m in (EDM, EDM2) if unwrap.find(saved, m, inner=_INNER[m])), None)


def _architecture(shapes: _Shapes) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """The network's class and arguments, as the names and shapes of its tensors determine them."""
    found = [re.fullmatch(r"enc\.(\d+)x\d+_block0\.conv_?\w*1\.weight", key) for key in shapes]
    sizes = sorted((int(match[1]) for match in found if match), reverse=True)
    last = "conv_res1" if "emb_noise.weight" in shapes else "conv1"
    widths = [shapes[f"enc.{s}x{s}_block0.{last}.weight"][0] for s in sizes]
    size = sizes[0]
    blocks = {key.split(".")[1] for key in shapes if key.startswith(f"enc.{size}x{size}_block")}
    attention = "attn_qkv" if last == "conv_res1" else "qkv"
    first = shapes[f"enc.{size}x{size}_conv.weight"]
    common = {
        "img_resolution": size,
        "num_blocks": len(blocks),
        "attn_resolutions": [
            s for s in sizes if f"enc.{s}x{s}_block0.{attention}.weight" in shapes
        ],
    }
    if "emb_noise.weight" in shapes:
        return EDM2UNet, {**common, **_edm2(shapes, widths, first)}
    common |= {
        "in_channels": first[1],
        "label_dim": shapes.get("map_label.weight", (0, 0))[1],
        "augment_dim": shapes.get("map_augment.weight", (0, 0))[1],
    }
    if "out_conv.weight" in shapes:
        return DhariwalUNet, {**common, **_dhariwal(shapes, widths)}
    return SongUNet, {**common, **_song(shapes, widths, size, first)}


def _edm2(shapes: _Shapes, widths: Sequence[int], first: Sequence[int]) -> dict[str, Any]:
    emb, noise = shapes["emb_noise.weight"]
    unit = math.gcd(*widths, emb, noise)
    return {
        "img_channels": first[1] - 1,
        "label_dim": shapes.get("emb_label.weight", (0, 0))[1],
        "model_channels": unit,
        "channel_mult": [width // unit for width in widths],
        "channel_mult_noise": noise // unit,
        "channel_mult_emb": emb // unit,
    }


def _dhariwal(shapes: _Shapes, widths: Sequence[int]) -> dict[str, Any]:
    emb, unit = shapes["map_layer0.weight"]
    return {
        "out_channels": shapes["out_conv.weight"][0],
        "model_channels": unit,
        "channel_mult": [width // unit for width in widths],
        "channel_mult_emb": emb // unit,
    }


def _song(
    shapes: _Shapes, widths: Sequence[int], size: int, first: Sequence[int]
) -> dict[str, Any]:
    emb, noise = shapes["map_layer0.weight"]
    if any("aux_skip" in key for key in shapes):
        raise ValueError("a 'skip' encoder or decoder, which kdiff does not have")
    filters = {shape[-1] for key, shape in shapes.items() if key.endswith("resample_filter")}
    return {
        "out_channels": shapes[f"dec.{size}x{size}_aux_conv.weight"][0],
        "model_channels": first[0],
        "channel_mult": [width // first[0] for width in widths],
        "channel_mult_emb": emb // first[0],
        "channel_mult_noise": noise // first[0],
        "embedding_type": "fourier" if "map_noise.freqs" in shapes else "positional",
        "encoder_type": "residual" if any("aux_residual" in k for k in shapes) else "standard",
        "resample_filter": _FILTERS[filters.pop()] if filters else _FILTERS[2],
    }
