"""`model-N.pt` of lucidrains' `denoising-diffusion-pytorch` (2.x), as its `Trainer` saves them, and
weights of its networks that others saved (see `unwrap`).

The weights are the moving average (`ema`), if there is one. The shapes of the tensors determine the
network's architecture. One buffer is the noise schedule. Another is the loss weight of each
timestep, which has a different form for each objective. The file does not say the image size, or
whether the data were scaled to [-1, 1] (they are unless auto_normalize was switched off).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdiff.checkpoints import MissingSetting, check_shape, torch_zip, unwrap
from kdiff.denoiser import Denoiser
from kdiff.networks import learns_variance
from kdiff.networks.lucidrains_unet import LucidrainsUNet
from kdiff.preconditioners import Precond
from kdiff.preconditioners import precond as make_precond

NAME = "lucidrains"
MARKS = ("init_conv.weight", "time_mlp.1.weight", "final_conv.weight")
_INNER = "model."  # the network within GaussianDiffusion
PREDICTIONS = ("eps", "x0", "v")  # pred_noise, pred_x0, pred_v


def detect(path: Path) -> str | None:
    """None if a network of this project's names was saved."""
    try:
        saved = unwrap.read(path)
    except ValueError as error:
        return str(error)
    return unwrap.missing(saved, MARKS, inner=_INNER)


def load(
    path: Path,
    *,
    shape: Sequence[int] | None = None,
    prediction: str | None = None,
    theta: float = 10000,
    precond: Precond | None = None,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser, on the CPU, in `dtype` (None: the file's). `weights` chooses among several
    networks (see `unwrap`).

    `shape` `(channels, height, width)` is always needed. `prediction` (eps, x0 or v) is needed only
    where the loss weights are not in the file, `precond` where the noise schedule is not, and
    `theta` if the network was built with another `sinusoidal_pos_emb_theta`.
    ValueError says what is missing, or which variant is not supported.
    """
    if not isinstance(theta, int | float):
        raise ValueError(f"{path}: theta must be a number, not {theta!r}")
    saved = unwrap.read(path)
    chosen, weighted = unwrap.take(saved, MARKS, weights, inner=_INNER)
    config = {**_architecture(path, chosen.tensors, saved.get("version")), "theta": theta}
    shape = _shape(path, shape, config)
    if precond is None:
        process, told = _process(path, chosen.owner, config, prediction)
    else:
        process, told = precond, "as told"
    network = torch_zip.fill(path, partial(LucidrainsUNet, **config), chosen.tensors, dtype)
    facts = {
        "format": "lucidrains' denoising-diffusion-pytorch",
        **weighted,
        "network": f"LucidrainsUNet, by the tensors' shapes; theta {theta:g} is not in the file",
        "parameterisation": told,
        "data range": "[-1, 1], assumed: the file does not say whether auto_normalize was on",
    }
    if precond is None:
        levels = len(process.sigmas or ())
        facts["noise schedule"] = f"{levels} timesteps, from the file's buffers"
    if config["self_condition"]:
        facts["self-conditioning"] = "the network is given zeros for its earlier estimate"
    return Denoiser(
        network,
        process,
        shape=shape,
        learned_variance=learns_variance(config, shape),
        name=path.stem,
        facts=facts,
    )


def _architecture(path: Path, tensors: Mapping[str, Tensor], version: Any) -> dict[str, Any]:
    if not {"downs.0.0.block1.norm.g", "downs.0.2.mem_kv"} <= tensors.keys():
        told = f" (it says {version})" if isinstance(version, str) else ""
        raise ValueError(
            f"{path}: its network is not of denoising-diffusion-pytorch 2.x{told}: 1.x had group "
            "norm, and attention without memory"
        )
    shapes = {key: list(value.shape) for key, value in tensors.items()}
    levels = len({key.split(".")[1] for key in shapes if key.startswith("downs.")})
    try:
        full = [f"downs.{i}.2.to_out.weight" in shapes for i in range(levels)]
        memories = [shapes[f"downs.{i}.2.mem_kv"] for i in range(levels)]
        out_channels, init_dim, *_ = shapes["final_conv.weight"]
        seen, learned = shapes["init_conv.weight"][1], 2 * shapes["init_conv.weight"][1]
        self_condition = seen == 2 * out_channels
        if not self_condition and out_channels not in (seen, learned):
            raise ValueError(f"{path}: {seen} channels in, {out_channels} out: not supported")
        return {
            "dim": shapes["time_mlp.1.weight"][1],
            "init_dim": init_dim,
            "widths": [_width(shapes, i) for i in range(levels)],
            "full_attention": full,
            "heads": [memory[1] for memory in memories],
            "head_channels": [m[3] if f else m[2] for m, f in zip(memories, full, strict=True)],
            "memory": memories[0][2] if full[0] else memories[0][3],
            "channels": out_channels if self_condition else seen,
            "out_channels": out_channels,
            "self_condition": self_condition,
        }
    except (KeyError, IndexError) as error:
        raise ValueError(f"{path}: a network of this kind has a tensor {error}") from error


def _width(shapes: Mapping[str, list[int]], level: int) -> int:
    convolution = f"downs.{level}.3.weight"
    return shapes.get(convolution, shapes.get(f"downs.{level}.3.1.weight", [0]))[0]


def _shape(path: Path, shape: Sequence[int] | None, config: Mapping[str, Any]) -> Sequence[int]:
    channels, factor = config["channels"], 2 ** (len(config["widths"]) - 1)
    if shape is None:
        raise MissingSetting(
            f"{path}: the file does not say the image size: give shape=({channels}, height, width)"
        )
    check_shape(shape, channels, factor)
    return shape


def _process(
    path: Path, buffers: Mapping[str, Tensor], config: Mapping[str, Any], prediction: str | None
) -> tuple[Precond, str]:
    """The preconditioner, and how it was decided."""
    if "sqrt_recipm1_alphas_cumprod" not in buffers:
        raise MissingSetting(
            f"{path}: it has no noise schedule of discrete timesteps (of this library's processes "
            "only GaussianDiffusion and LearnedGaussianDiffusion are supported): give precond, "
            "such as precond=flow"
        )
    sigmas = buffers["sqrt_recipm1_alphas_cumprod"].double()  # sigma = sqrt(1 / a - 1)
    told = f"{prediction}, as told"
    if prediction is None and learns_variance(config, [config["channels"]]):
        prediction, told = "eps", "eps: networks with learned variance are trained on no other"
    if prediction is None:
        prediction = _objective(buffers.get("loss_weight"), sigmas**-2)
        told = f"{prediction}, from the form of the loss weights"
    if prediction not in PREDICTIONS:
        raise MissingSetting(
            f"{path}: the file does not say what the network predicts: give prediction= one of "
            f"{', '.join(PREDICTIONS)}"
        )
    return make_precond(prediction, alphas_cumprod=(1 / (1 + sigmas**2)).tolist()), told


def _objective(weight: Tensor | None, snr: Tensor) -> str | None:
    """The prediction whose loss weight has this form: min(snr, gamma), any gamma, on the error of
    x0. The error of eps times 1 / snr, and the error of v times 1 / (snr + 1), are equal to it."""
    if weight is None or weight.shape != snr.shape:
        return None
    weight, snr = weight[snr > 0], snr[snr > 0]  # at zero it is 0, or 0 / 0
    for prediction, factor in zip(PREDICTIONS, (snr, torch.ones_like(snr), snr + 1), strict=True):
        clipped = weight.double() * factor
        if torch.allclose(clipped, snr.clamp(max=clipped.max().item()), rtol=1e-3):
            return prediction
    return None
