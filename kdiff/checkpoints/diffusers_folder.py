"""Folders that diffusers' `save_pretrained` wrote: a pipeline (model_index.json), or one network.

Of a pipeline, the denoising network, the configuration of the scheduler and the VAE are taken; text
encoders are left out, so that prompts come as embeddings. Folders whose parts all lie at the top,
as google/ddpm-cifar10-32 has them, are read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import diffusers_scheduler as scheduler
from kdiff.checkpoints.diffusers_model import build, class_name, files_of, is_there, read_json
from kdiff.denoiser import Denoiser
from kdiff.latent import LatentDenoiser
from kdiff.networks.diffusers_models import ADAPTERS, DiffusersNetwork
from kdiff.precond import Precond

NAME = "diffusers"
NETWORKS = ("unet", "transformer")  # a pipeline's names for the network that denoises
PARTS = (*NETWORKS, "scheduler", "vae", "vqvae")
# For a folder without a scheduler: DDPM's, with which UNet2DModel and DiT were published.
ASSUMED: Mapping[str, Any] = {"beta_schedule": "linear", "prediction_type": "epsilon"}
ASSUMED_FLOW: Mapping[str, Any] = {"shift": 1.0}


def detect(path: Path) -> str | None:
    """None if it is a folder with a model_index.json, or a config.json of a known network."""
    if not path.is_dir():
        return "not a folder"
    if (path / "model_index.json").is_file():
        return None
    if not (path / "config.json").is_file():
        return "no model_index.json and no config.json"
    name = class_name(path)
    return None if name in ADAPTERS else f"config.json is of a {name}"


def files(path: Path, variant: str | None = None) -> list[Path]:
    """All files that `load` reads. ValueError if one lacks."""
    index, parts = _parts(path)
    networks = [parts[name] for name in ("network", "vae") if name in parts]
    return [
        *([path / "model_index.json"] if index else []),
        *_scheduler_files(parts),
        *(file for folder in dict.fromkeys(networks) for file in files_of(folder, variant)),
    ]


def load(
    path: Path, *, variant: str | None = None, dtype: torch.dtype | None = torch.float32
) -> Denoiser:
    """The denoiser of a folder, on the CPU; a `LatentDenoiser`, with `decode`, if there is a VAE.

    `variant`: which weights, such as `fp16` for diffusion_pytorch_model.fp16.safetensors; `dtype`:
    in which dtype to have them (None: the file's).
    ValueError says what is missing or not supported.
    """
    if find_spec("diffusers") is None:
        raise ValueError(f"{path}: this folder needs diffusers: pip install diffusers")
    path = Path(path)
    index, parts = _parts(path)
    kind = class_name(parts["network"])
    if kind not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"{path}: its network is a {kind}, which is not supported: {known} are")
    precond, told = _process(parts, kind)
    network = _network(path, kind, parts["network"], variant, dtype)
    keywords: dict[str, Any] = {
        "shape": _shape(path, network),
        "classes": _classes(index, network.classes),
        "name": path.resolve().name,
        "facts": {
            "format": f"diffusers {index.get('_class_name', 'network without a pipeline')}",
            "network": type(network.model).__name__,
            **told,
        },
    }
    if "vae" not in parts:
        return Denoiser(network, precond, **keywords)
    vae = _vae(parts["vae"], variant, dtype)
    keywords["facts"]["decoding"] = (
        f"samples are latents: model.decode(samples) by its {type(vae).__name__}, scaling_factor "
        f"{vae.config.scaling_factor:g}"
    )
    return LatentDenoiser(network, precond, vae=vae, **keywords)


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The model_index.json, or nothing, and the folder of each part that kdiff reads."""
    if not (path / "model_index.json").is_file():
        beside = path / ".." / "scheduler"  # if it is the unet of a whole pipeline
        own = is_there(path / "scheduler_config.json") or not is_there(beside)
        return {}, {"network": path, "scheduler": path if own else beside}
    index = read_json(path / "model_index.json")
    present = [name for name in PARTS if _named(index.get(name))]
    parts = {name: path / name if is_there(path / name) else path for name in present}
    networks = [name for name in NETWORKS if name in parts]
    if len(networks) != 1 or "vqvae" in parts:
        kind = index.get("_class_name")
        raise ValueError(
            f"{path}: a {kind} is not supported: kdiff reads pipelines of one unet or transformer, "
            "with a scheduler, and a vae or none"
        )
    parts["network"] = parts.pop(networks[0])
    return index, parts


def _named(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _process(parts: Mapping[str, Path], kind: str) -> tuple[Precond, dict[str, str]]:
    """The preconditioner by the scheduler's configuration, and what to tell about it."""
    for file in _scheduler_files(parts):
        found = read_json(file)
        return scheduler.precond_of(found), scheduler.describe(found)
    config = ASSUMED_FLOW if kind.startswith("SD3") else ASSUMED
    precond = scheduler.precond_of(config)
    return precond, {
        **scheduler.describe(config),
        "parameterisation": f"{precond.name}, assumed: there is no scheduler_config.json",
    }


def _scheduler_files(parts: Mapping[str, Path]) -> list[Path]:
    """Its configuration, if there is one."""
    files = [parts["scheduler"] / "scheduler_config.json"] if "scheduler" in parts else []
    return [file for file in files if is_there(file)]


def _network(
    path: Path, kind: str, folder: Path, variant: str | None, dtype: torch.dtype | None
) -> DiffusersNetwork:
    import diffusers

    model = build(getattr(diffusers, kind), folder, variant, dtype)
    try:
        return ADAPTERS[kind](model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _shape(path: Path, network: DiffusersNetwork) -> Sequence[int]:
    config = network.model.config
    size, channels = config.sample_size, config.in_channels
    if size is None:
        raise ValueError(f"{path}: its config.json has no sample_size")
    if config.out_channels not in (None, channels, 2 * channels):
        raise ValueError(
            f"{path}: a network of {channels} channels in and {config.out_channels} out, as for "
            "inpainting, is not supported"
        )
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


def _classes(index: Mapping[str, Any], number: int) -> list[str]:
    """The first word or words of each label in the pipeline's id2label, or numbers."""
    labels = index.get("id2label")
    labels = labels if isinstance(labels, dict) else {}
    named = (str(labels.get(str(i), i)) for i in range(number))
    return [name.split(",")[0].strip().lower() for name in named]


def _vae(folder: Path, variant: str | None, dtype: torch.dtype | None) -> Any:
    from diffusers import AutoencoderKL

    name = class_name(folder)
    if name != "AutoencoderKL":
        raise ValueError(f"{folder}: a {name} is not supported; AutoencoderKL is")
    vae: Any = build(AutoencoderKL, folder, variant, dtype)
    if vae.config.latents_mean is not None or vae.config.latents_std is not None:
        raise ValueError(f"{folder}: latents_mean and latents_std are not supported")
    return vae
