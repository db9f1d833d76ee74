"""score_sde_pytorch's `.pth` of DDPM++ and NCSN++ (`ncsnpp` there), continuous in time, as its
`save_checkpoint` writes them: `{'optimizer', 'model', 'ema', 'step'}`; and weights of its networks
that others saved (see `unwrap`).

The weights are the moving average, a list in the order of the model's parameters. They are renamed
for `SongUNet`, which has this architecture. The shapes of the tensors determine its arguments. The
file does not say which SDE it was trained on (see `load`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdiff.checkpoints import MissingSetting, check_shape, torch_zip, unwrap
from kdiff.denoiser import Denoiser
from kdiff.networks.song_unet import FourierEmbedding, Resample, SongUNet, UNetBlock
from kdiff.preconditioners import Precond, eps, sub_vp, ve, vp

NAME = "score_sde"
_PREFIX = "all_modules."
MARKS = (f"{_PREFIX}1.weight", f"{_PREFIX}2.weight", f"{_PREFIX}3.Conv_0.weight")
_FIXED = ("sigmas", f"{_PREFIX}0.W")  # not trained: buffers, and Fourier features
_ATTENTION_SIZE = 16  # the attn_resolutions of all published configurations
_FIR, _BOX = [1, 3, 3, 1], [1, 1]
# the parts of a block: our name, their name
_BLOCK = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
    "skip": "Conv_2",
}

Module = Mapping[str, Tensor]  # the tensors of one entry of `all_modules`


def detect(path: Path) -> str | None:
    """None if a network of this project's names was saved."""
    try:
        saved = unwrap.read(path)
    except ValueError as error:
        return str(error)
    return unwrap.missing(saved, MARKS[:2], fixed=_FIXED)


def load(
    path: Path,
    *,
    sde: str | None = None,
    shape: Sequence[int] | None = None,
    precond: Precond | None = None,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser, for images in [-1, 1], on the CPU, in `dtype` (None: the file's). `weights`
    chooses among several networks (see `unwrap`): by default the moving average.

    `sde`, with positional embeddings, is `vpsde` (the default), `subvpsde` or `vpsde-discrete`
    (trained with `training.continuous = False`): a file does not tell them apart. With Fourier
    features it is always `vesde`, whose range in the file is for images in [0, 1] and is doubled.
    `shape` `(channels, height, width)`: by default the size that has attention at 16 x 16.
    `precond` replaces the SDE, for networks that were trained in another way.
    ValueError names what is not supported.
    """
    tensors, weighted = _tensors(path, weights)
    # A view can claim any shape over a few bytes, and some are put together before they are copied.
    if sum(value.nbytes for value in tensors.values()) > path.stat().st_size:
        raise ValueError(f"{path}: its tensors are not stored in the file")
    modules = _modules(tensors)
    try:
        settings = _settings(modules, shape)
        make = partial(SongUNet, **settings)
        renamed = _renamed(modules, make)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, IndexError, StopIteration) as error:
        reason = " ".join(map(str, error.args)) or "missing"
        raise ValueError(f"{path}: a network of this kind has another tensor: {reason}") from error
    fourier = settings["embedding_type"] == "fourier"
    reason = "told" if sde else "Fourier features" if fourier else "assumed, as most are"
    sde = sde or ("vesde" if fourier else "vpsde")
    if precond is None and (sde not in _PRECONDS or fourier != (sde == "vesde")):
        kind = "vesde" if fourier else "vpsde, subvpsde or vpsde-discrete"
        raise ValueError(
            f"{path}: the sde of this network can be {kind}, not {sde!r}; give precond for all else"
        )
    size, channels = settings["img_resolution"], settings["in_channels"]
    assumed = {} if shape else {"image size": f"{size}, assumed: attention is at 16 x 16"}
    shape = shape or (channels, size, size)
    check_shape(shape, channels, 2 ** (len(settings["channel_mult"]) - 1))
    residual = settings["encoder_type"] == "residual"
    return Denoiser(
        torch_zip.fill(path, make, renamed, dtype),
        precond or _PRECONDS[sde](tensors.get("sigmas")),
        shape=shape,
        name=path.stem,
        facts={
            "format": "score_sde_pytorch",
            **weighted,
            "network": f"{'NCSN++' if residual else 'DDPM++'}, from the tensors' shapes",
            **assumed,
            "parameterisation": "as told" if precond else f"{sde} ({reason})",
        },
    )


def _tensors(path: Path, weights: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The network's tensors, and how they were chosen. The project's own files always have an
    average: MissingSetting if it is missing or does not fit."""
    saved = unwrap.read(path)
    lost = MissingSetting(
        f"{path}: no ema.shadow_params for a model.{_PREFIX}*: give weights=model to take the "
        "network without its moving average"
    )
    try:
        chosen, weighted = unwrap.take(saved, MARKS[:2], weights, fixed=_FIXED)
    except MissingSetting as error:
        raise (lost if "does not fit" in str(error) else error) from error
    if weights is None and not chosen.average and {"model", "optimizer"} <= saved.keys():
        raise lost
    return chosen.tensors, weighted


def _modules(tensors: Mapping[str, Tensor]) -> list[Module]:
    """The entries of `all_modules`, in order."""
    inside = torch_zip.tensors_under(_PREFIX, tensors)
    groups: dict[int, dict[str, Tensor]] = {}
    for key, value in inside.items():
        index, _, name = key.partition(".")
        if index.isdecimal():
            groups.setdefault(int(index), {})[name] = value
    return [groups[index] for index in sorted(groups)]


def _is_block(module: Module) -> bool:
    return "GroupNorm_1.weight" in module


def _is_attention(module: Module) -> bool:
    return "NIN_3.W" in module


def _resamples(module: Module) -> bool:
    """Only blocks that resample have a shortcut between equal widths."""
    shortcut = module.get("Conv_2.weight")
    return shortcut is not None and shortcut.shape[0] == shortcut.shape[1]


def _settings(modules: Sequence[Module], shape: Sequence[int] | None) -> dict[str, Any]:
    """The arguments of `SongUNet` that give these modules. ValueError if there are none."""
    fourier = "W" in modules[0]
    first, *body = modules[3 if fourier else 2 :]
    kinds = [frozenset(module) for module in body]
    if not any(map(_resamples, body)):
        raise ValueError("only networks of BigGAN blocks are supported, not of DDPM's")
    if frozenset(("Conv_0.weight", "Conv_0.bias")) in kinds:
        raise ValueError("a network with progressive_input = input_skip is not supported")
    residual = any("Conv2d_0.weight" in kind for kind in kinds)
    model_channels, in_channels = first["weight"].shape[:2]
    levels = _levels(body)
    widths = [level[0]["Conv_0.weight"].shape[0] for level in levels]
    attentive = [i for i, level in enumerate(levels) if any(map(_is_attention, level[:2]))]
    size = shape[-1] if shape else _ATTENTION_SIZE << (attentive[0] if attentive else 1)
    return {
        "img_resolution": size,
        "in_channels": in_channels,
        "out_channels": in_channels,
        "model_channels": model_channels,
        "channel_mult": [width // model_channels for width in widths],
        "channel_mult_noise": 2 if fourier else 1,
        "num_blocks": sum(map(_is_block, levels[0])),
        "attn_resolutions": [size >> i for i in attentive],
        "embedding_type": "fourier" if fourier else "positional",
        "encoder_type": "residual" if residual else "standard",
        "resample_filter": _FIR if residual else _BOX,
    }


def _levels(body: Sequence[Module]) -> list[list[Module]]:
    """The blocks and attention of each level on the way down. The last level includes the rest."""
    levels: list[list[Module]] = [[]]
    for module in body:
        if _resamples(module):
            levels.append([])
        elif _is_block(module) or _is_attention(module):
            levels[-1].append(module)
    return levels[: len(levels) // 2 + 1]  # as many go up as down


def _renamed(modules: Sequence[Module], make: Callable[[], SongUNet]) -> dict[str, Tensor]:
    """The tensors under the names of `make()`, whose layers have the same order."""
    with torch.device("meta"):
        network = make()
    rest = iter(modules)
    tensors: dict[str, Tensor] = {}
    if isinstance(network.map_noise, FourierEmbedding):
        tensors["map_noise.freqs"] = next(rest)["W"]
    for name in ("map_layer0", "map_layer1"):
        tensors |= _under(name, next(rest))
    for part in ("enc", "dec"):
        for name, layer in getattr(network, part).items():
            tensors |= _under(f"{part}.{name}", _layer(layer, rest))
    if any(True for _ in rest):
        raise ValueError("its network has more layers than are known")
    return tensors


def _under(name: str, tensors: Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}


def _layer(layer: nn.Module, rest: Iterator[Module]) -> dict[str, Tensor]:
    """The tensors of one layer, by its own names, from the next module, or from the next two if it
    has attention."""
    module = next(rest)
    if not isinstance(layer, UNetBlock):
        kept = {key.removeprefix("Conv2d_0."): value for key, value in module.items()}
        return {**kept, **_filter(layer)}
    tensors: dict[str, Tensor] = {}
    for ours, theirs in _BLOCK.items():
        part = getattr(layer, ours)
        if part is not None:
            tensors |= _under(ours, torch_zip.tensors_under(f"{theirs}.", module))
            tensors |= _under(ours, _filter(part))
    if layer.norm2 is not None:
        tensors |= _attention(next(rest))
    return tensors


def _filter(layer: nn.Module) -> dict[str, Tensor]:
    """The filter of a resampling layer. No file has it, and in `layer` it has no values."""
    if not isinstance(layer, Resample) or layer.resample is None:
        return {}
    f = _FIR if layer.resample_filter.shape[-1] == len(_FIR) else _BOX
    return {"resample_filter": Resample("down", f).resample_filter}


def _attention(module: Module) -> dict[str, Tensor]:
    """Their 1 x 1 convolutions are matrices W, x -> x W. Ours is one of q, k and v, interleaved."""
    w = [module[f"NIN_{i}.W"].T for i in range(4)]
    b = [module[f"NIN_{i}.b"] for i in range(4)]
    return {
        "norm2.weight": module["GroupNorm_0.weight"],
        "norm2.bias": module["GroupNorm_0.bias"],
        "qkv.weight": torch.stack(w[:3], dim=1).flatten(0, 1)[:, :, None, None],
        "qkv.bias": torch.stack(b[:3], dim=1).flatten(),
        "proj.weight": w[3][:, :, None, None].contiguous(),
        "proj.bias": b[3],
    }


def _ve(sigmas: Tensor | None) -> Precond:
    if sigmas is None:
        return ve()
    return ve(2 * float(sigmas.min()), 2 * float(sigmas.max()))


_PRECONDS: dict[str, Callable[[Tensor | None], Precond]] = {
    "vpsde": lambda sigmas: vp(),
    "subvpsde": lambda sigmas: sub_vp(),
    "vpsde-discrete": lambda sigmas: eps("linear"),
    "vesde": _ve,
}
