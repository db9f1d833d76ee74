"""k-diffusion checkpoints: `.safetensors` as its `convert_for_inference.py` writes them, with the
config in the metadata, and `.pth` of its `train.py`, of which the moving average is taken.

A file without a config needs it beside itself, as `NAME.json`: what was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from kdiff.checkpoints import torch_zip
from kdiff.denoiser import Denoiser
from kdiff.networks import at_most
from kdiff.networks.k_diffusion_v1 import KDiffusionV1
from kdiff.networks.k_diffusion_v2 import KDiffusionV2
from kdiff.precond import edm

NAME = "k-diffusion"
MAX_CONFIG_BYTES = 1 << 20
AUGMENTATIONS = 9  # numbers that tell an augmented training image
SIGMA_MIN, SIGMA_MAX = 1e-2, 80.0  # in all of k-diffusion's configurations, or near


def detect(path: Path) -> str | None:
    """None if there are a config with a model's type, and weights to go with it."""
    try:
        inside = _config_inside(path)
    except ValueError as error:
        return str(error)
    try:
        return None if "type" in _config(path, inside)["model"] else "no model type in its config"
    except ValueError:
        return f"no k-diffusion config in it or beside it, as {_beside(path).name}"


def files(path: Path) -> list[Path]:
    """The file, and the config beside it if it has none itself."""
    return [path, *([_beside(path)] if _config_inside(path) is None else [])]


def load(path: Path, *, dtype: torch.dtype | None = torch.float32) -> Denoiser:
    """The denoiser of the moving average, on the CPU, in `dtype` (None: the file's).

    ValueError if the config is of a network, or has conditioning, that is not supported.
    """
    config = _config(path, _config_inside(path))
    model = config["model"]
    if model["type"] not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ValueError(
            f"{path}: a network of type {model['type']!r} is not supported; {known} are"
        )
    try:
        make = NETWORKS[model["type"]](config)
        sigma_data = _number(model, "sigma_data", 1.0)
        limits = _number(model, "sigma_min", SIGMA_MIN), _number(model, "sigma_max", SIGMA_MAX)
        shape = (model["input_channels"], *model["input_size"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its config is not complete: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    prefix = "inner_model."  # of the wrapper that feeds it what augmentation was done
    plain = {key.removeprefix(prefix): value for key, value in _tensors(path).items()}

    def bounded() -> nn.Module:
        with at_most(len(plain)):  # whatever depths the config asks for
            return make()

    return Denoiser(
        torch_zip.fill(path, bounded, plain, dtype),
        edm(sigma_data, *limits),
        shape=shape,
        classes=[str(i) for i in range(_classes(config))],
        name=path.stem,
        facts={
            "format": "k-diffusion",
            "weights": "the moving average (model_ema)",
            "network": f"{model['type']}, from the config",
            "parameterisation": f"EDM's, sigma_data {sigma_data:g}, from the config",
        },
    )


def _config_inside(path: Path) -> Any:
    """What the file itself says, or None. ValueError if it cannot be a checkpoint."""
    if path.suffix != ".safetensors":
        return _saved(path).get("config")
    try:
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get("config")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"not a whole safetensors file: {error}") from error
    return None if config is None else _parsed(config, path)


def _saved(path: Path) -> dict[str, Any]:
    saved = torch_zip.read(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("model_ema"), dict):
        raise ValueError("no model_ema")
    return saved


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch_zip.tensors_under("", _saved(path)["model_ema"])


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _config(path: Path, inside: Any) -> dict[str, Any]:
    config = inside
    if config is None and _beside(path).is_file():
        if _beside(path).stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"{_beside(path)} is too large for a config")
        config = _parsed(_beside(path).read_text(), _beside(path))
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise ValueError(f"{path}: no k-diffusion config in it or in {_beside(path).name}")
    return config


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its config is not JSON: {error}") from error


def _image_v1(config: Mapping[str, Any]) -> Callable[[], nn.Module]:
    model = config["model"]
    if model.get("cross_cond_dim"):
        raise ValueError("image_v1 with cross-attention (cross_cond_dim) is not supported")
    augmented = model.get("augment_wrapper", True) * AUGMENTATIONS
    optional = ("unet_cond_dim", "patch_size", "skip_stages", "has_variance")
    return partial(
        KDiffusionV1,
        model["input_channels"],
        model["mapping_out"],
        model["depths"],
        model["channels"],
        model["self_attn_depths"],
        mapping_cond_dim=model.get("mapping_cond_dim", 0) + augmented,
        **{key: model[key] for key in optional if key in model},
    )


def _image_transformer_v2(config: Mapping[str, Any]) -> Callable[[], nn.Module]:
    model = config["model"]
    widths = model["widths"]
    near = [{"type": "neighborhood", "d_head": 64, "kernel_size": 7}] * (len(widths) - 1)
    mapping_width = model.get("mapping_width", 256)
    return partial(
        KDiffusionV2,
        model["input_channels"],
        model["patch_size"],
        model["depths"],
        widths,
        model.get("self_attns") or [*near, {"type": "global", "d_head": 64}],
        model.get("d_ffs") or [3 * width for width in widths],
        mapping_width=mapping_width,
        mapping_depth=model.get("mapping_depth", 2),
        mapping_d_ff=model.get("mapping_d_ff") or 3 * mapping_width,
        mapping_cond_dim=model.get("mapping_cond_dim", 0),
        num_classes=_classes(config),
    )


def _classes(config: Mapping[str, Any]) -> int:
    dataset = config.get("dataset", {})
    if not isinstance(dataset, dict):
        raise ValueError(f"its config has no settings as dataset, but {dataset!r:.80}")
    return int(_number(dataset, "num_classes", 0))


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    """One setting. ValueError if it is there, but no number."""
    value = settings.get(key, default)
    if type(value) not in (int, float):
        raise ValueError(f"its config has no number as {key}, but {value!r:.80}")
    return float(value)


NETWORKS: dict[str, Callable[[Mapping[str, Any]], Callable[[], nn.Module]]] = {
    "image_v1": _image_v1,
    "image_transformer_v2": _image_transformer_v2,
}
