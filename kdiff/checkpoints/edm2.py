"""EDM2's pickles (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
Models"): `network-snapshot-*.pkl`, what `reconstruct_phema.py` writes, and the published ones.

Nothing in the pickle runs; see `unpickle`. Weights are stored in float16. Networks for ImageNet-512
work on latents of a VAE that is not in the file; `facts["latents"]` names it and says how its
latents were scaled. The uncertainty estimate (logvar), which only training uses, is left out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints.pickle_machine import Record
from kdiff.checkpoints.snapshot import build, missing, number, preconditioner
from kdiff.checkpoints.unpickle import Pickle, opened
from kdiff.denoiser import Denoiser
from kdiff.networks.edm2_unet import EDM2UNet, MPBlock
from kdiff.preconditioners import precond

NAME = "edm2"
_PRECOND = "Precond"


def detect(path: Path) -> str | None:
    """None if the file is a pickle with EDM2's preconditioner."""
    return missing(path, [_PRECOND])


def load(path: Path, dtype: torch.dtype | None = torch.float32) -> Denoiser:
    """The denoiser in a pickle of EDM2's, on the CPU, in `dtype` (None: the file's). ValueError if
    the pickle is damaged or has anything that such a pickle does not need."""
    with opened(path) as pickle:
        net = preconditioner(pickle.value)
        if net.name != _PRECOND:
            raise ValueError(f"its network is a {net.name[:80]}")
        size, channels = int(number(net, "img_resolution")), int(number(net, "img_channels"))
        sigma_data = number(net, "sigma_data")
        network = build(pickle, net.state["_modules"]["unet"], EDM2UNet, None)
        facts = _latents(pickle)
    _convert(network, dtype)
    return Denoiser(
        network,
        precond("edm", sigma_data=sigma_data),
        shape=(channels, size, size),
        classes=[str(i) for i in range(network.label_dim)],
        name=Path(path).stem,
        facts={
            "format": "EDM2 pickle",
            "parameterisation": f"edm (sigma_data {sigma_data:g}): the pickle's {net.name}",
            **facts,
        },
    )


def _convert(network: EDM2UNet, dtype: torch.dtype | None) -> None:
    """The network in `dtype` (None: as it is). EDM2's code multiplies weights by
    gain / sqrt(fan-in), rounded to the dtype of the gain. A wider gain is adjusted to give the
    same factor."""
    half = network.out_gain.dtype
    network.to(dtype)
    blocks = [module for module in network.modules() if isinstance(module, MPBlock)]
    gains = [(network.out_gain, network.out_conv), *((b.emb_gain, b.emb_linear) for b in blocks)]
    for gain, layer in gains:
        root = math.sqrt(layer.weight[0].numel())
        gain.copy_((gain / root).to(half).to(gain.dtype) * root)


def _latents(pickle: Pickle) -> dict[str, str]:
    encoder: Any = pickle.value.get("encoder") if isinstance(pickle.value, dict) else None
    if not isinstance(encoder, Record) or encoder.name != "StabilityVAEEncoder":
        return {}
    numbers = [pickle.array(encoder.state[name]).ravel() for name in ("scale", "bias")]
    scale, bias = (", ".join(f"{value:.8g}" for value in values) for values in numbers)
    return {"latents": f"{encoder.state['vae_name']}'s, times ({scale}), plus ({bias})"}
