"""Folders that diffusers' `save_pretrained` wrote: a pipeline (model_index.json), or one network.

kdiff reads the denoising network, the configuration of the scheduler and the VAE of a pipeline, and
its text encoders when there are prompts. Folders whose parts all lie at the top, such as
google/ddpm-cifar10-32, are read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import MissingSetting, check_shape
from kdiff.checkpoints import diffusers_scheduler as scheduler
from kdiff.checkpoints.diffusers_model import build, class_name, files_of
from kdiff.checkpoints.diffusers_text import text_encoders
from kdiff.checkpoints.model_folder import is_there, read_json
from kdiff.denoiser import Denoiser
from kdiff.latent import LatentDenoiser
from kdiff.networks import learns_variance
from kdiff.networks.diffusers_models import ADAPTERS, DiffusersNetwork
from kdiff.preconditioners import PRECONDS, Precond

NAME = "diffusers"
NETWORKS = ("unet", "transformer")  # the names that pipelines give to the denoising network
_PARTS = (*NETWORKS, "scheduler", "vae", "vqvae")
# The settings with which networks of a class were published, for folders without a scheduler.
_DDPM = (
    "DDPM",
    {
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
    },
)
_ASSUMED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "UNet2DConditionModel": (
        "Stable Diffusion",
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "epsilon",
        },
    ),
    "SD3Transformer2DModel": ("Stable Diffusion 3", {"shift": 3.0}),
    "FluxTransformer2DModel": ("Flux.1 dev", {"shift": 3.0, "use_dynamic_shifting": True}),
}
_LATENTS = {  # of the latents z that the VAE encodes and decodes
    "UNet2DConditionModel": "0.18215 z, as in Stable Diffusion (XL: 0.13025 z)",
    "FluxTransformer2DModel": "0.3611 (z - 0.1159), as in Flux",
    "SD3Transformer2DModel": "1.5305 (z - 0.0609), as in Stable Diffusion 3",
    "DiTTransformer2DModel": "0.18215 z, as in DiT",
    "Transformer2DModel": "0.18215 z, as in DiT",
}


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
    path: Path,
    *,
    shape: Sequence[int] | None = None,
    precond: Precond | None = None,
    prediction: str | None = None,
    shift: float | None = None,
    variant: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser of a folder, on the CPU; a `LatentDenoiser`, with `decode`, if there is a VAE.

    `shape` replaces the network's sample_size. `prediction` (eps, v, x0) and `shift` (of flow
    matching) replace the scheduler's values, and `precond` replaces all of its settings. `variant`
    chooses the weights, such as `fp16` for diffusion_pytorch_model.fp16.safetensors. `dtype` is
    their dtype in memory (None: the file's).
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
    config = _config(parts, kind, _told(prediction, shift))
    network = _network(path, kind, parts["network"], variant, dtype)
    size = _shape(path, network, shape)
    try:
        process = _levels(config, network, size) if precond is None else precond
        facts = _facts(parts, kind, process, None if precond else config, prediction)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error
    keywords: dict[str, Any] = {
        "shape": size,
        "classes": _classes(index, network.classes),
        "learned_variance": learns_variance(network.model.config, [network.channels]),
        "name": path.resolve().name,
        "facts": {
            "format": f"diffusers {index.get('_class_name', 'network without a pipeline')}",
            "network": type(network.model).__name__,
            **facts,
        },
    }
    if "vae" not in parts:
        if kind in _LATENTS and keywords["shape"][0] not in (1, 3):
            keywords["facts"]["latents"] = f"without a VAE in the folder, assumed: {_LATENTS[kind]}"
        return Denoiser(network, process, **keywords)
    vae = _vae(parts["vae"], variant, dtype)
    keywords["facts"]["decoding"] = (
        f"samples are latents: model.decode(samples) by its {type(vae).__name__}, scaling_factor "
        f"{vae.config.scaling_factor:g}"
    )
    texts = text_encoders(path, index, network, variant)
    if isinstance(texts, str):
        keywords["facts"]["prompts"], texts = texts, None
    elif texts is not None:
        keywords["facts"]["prompts"] = f"by its text encoders, as in {network.texts}"
    sized = precond is None and scheduler.shifts_by_size(config)
    levels = partial(_levels, config, network) if sized else None
    return LatentDenoiser(network, process, vae=vae, texts=texts, levels=levels, **keywords)


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The model_index.json, or nothing, and the folder of each part that kdiff reads."""
    if not (path / "model_index.json").is_file():
        beside = path / ".." / "scheduler"  # if it is the unet of a whole pipeline
        own = is_there(path / "scheduler_config.json") or not is_there(beside)
        return {}, {"network": path, "scheduler": path if own else beside}
    index = read_json(path / "model_index.json")
    present = [name for name in _PARTS if _named(index.get(name))]
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


def _config(parts: Mapping[str, Path], kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler's, or an assumed one, where told settings replace others."""
    there = _scheduler_files(parts)
    return {**(read_json(there[0]) if there else _assumed(kind)[1]), **told}


def _assumed(kind: str) -> tuple[str, Mapping[str, Any]]:
    return _ASSUMED.get(kind, _DDPM)


def _levels(config: Mapping[str, Any], network: DiffusersNetwork, shape: Sequence[int]) -> Precond:
    """The preconditioner for samples of this shape."""
    try:
        return scheduler.precond_of(config, network.tokens(shape))
    except ValueError as error:
        raise MissingSetting(f"{error}: give {_answer(config)}") from error


def _facts(
    parts: Mapping[str, Path],
    kind: str,
    process: Precond,
    config: Mapping[str, Any] | None,
    prediction: str | None,
) -> dict[str, str]:
    """What to report about the preconditioner, which a scheduler's `config` led to if there is
    one."""
    if config is None:
        return {"parameterisation": "as told"}
    if prediction is not None and process.name != prediction:
        raise ValueError(f"prediction={prediction!r} cannot replace {process.name}: give precond")
    facts = scheduler.describe(config)
    if not _scheduler_files(parts):
        del facts["diffusers' own sampling"]
        why = f"assumed, as in {_assumed(kind)[0]}: there is no scheduler_config.json"
        facts["parameterisation"] = f"{process.name}, {why}"
        facts["noise schedule"] += f", {why}"
    if prediction is not None:
        facts["parameterisation"] = "as told to kdiff.load"
    return facts


def _told(prediction: str | None, shift: float | None) -> dict[str, Any]:
    """The scheduler settings that the keywords stand for."""
    if prediction is not None and prediction not in scheduler.PREDICTIONS.values():
        known = ", ".join(scheduler.PREDICTIONS.values())
        raise ValueError(f"prediction must be one of {known}, not {prediction!r}: or give precond")
    names = {ours: theirs for theirs, ours in scheduler.PREDICTIONS.items()}
    return {
        **({} if prediction is None else {"prediction_type": names[prediction]}),
        **({} if shift is None else {"shift": shift, "use_dynamic_shifting": False}),
    }


def _answer(config: Mapping[str, Any]) -> str:
    """The keyword for a setting that a scheduler's configuration lacks, or has in an unsupported
    form."""
    if scheduler.is_flow(config):
        return "shift=3.0, or whichever it was, or precond"
    if config.get("prediction_type", "epsilon") not in scheduler.PREDICTIONS:
        return f"prediction= one of {', '.join(scheduler.PREDICTIONS.values())}, or precond"
    edm = " (for this one probably precond=edm)" if "sigma_data" in config else ""
    return f"precond= one of {', '.join(PRECONDS)}{edm}"


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


def _shape(path: Path, network: DiffusersNetwork, shape: Sequence[int] | None) -> Sequence[int]:
    config, size, channels = network.model.config, network.sample_size, network.channels
    if size is None and shape is None:
        raise MissingSetting(
            f"{path}: its config.json has no sample_size: give shape=({channels}, height, width)"
        )
    inner = config.in_channels
    if config.out_channels not in (None, inner, 2 * inner):
        raise ValueError(
            f"{path}: a network of {inner} channels in and {config.out_channels} out, as for "
            "inpainting, is not supported"
        )
    if shape is not None:
        check_shape(shape, channels, network.patch)
        return shape
    assert size is not None
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
