"""k-diffusion checkpoints: `.safetensors` of its `convert_for_inference.py`, with the config in the
metadata; `.pth` of its `train.py`, from which the moving average is taken; and weights of its
networks that others saved (see `unwrap`).

A file without a config needs the config of its training: beside it, as `NAME.json`, or as the
setting `config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from kdiff.checkpoints import MissingSetting, check_shape, torch_zip, unwrap
from kdiff.denoiser import Denoiser
from kdiff.files import parse_json, read_json, user_path
from kdiff.networks import at_most
from kdiff.networks.k_diffusion_v1 import KDiffusionV1
from kdiff.networks.k_diffusion_v2 import KDiffusionV2
from kdiff.preconditioners import Precond, edm

NAME = "k-diffusion"
_INNER = "inner_model."  # the wrapper that tells the network which augmentation was done
_MARKS = {
    "image_v1": ("proj_in.weight", "mapping.0.weight", "proj_out.weight"),
    "image_transformer_v2": ("patch_in.proj.weight", "time_emb.weight", "patch_out.proj.weight"),
}
_MAX_CONFIG_BYTES = 1 << 20
AUGMENTATIONS = 9  # numbers that tell an augmented training image
SIGMA_MIN, SIGMA_MAX = 1e-2, 80.0  # in k-diffusion's configurations, exactly or nearly


def detect(path: Path) -> str | None:
    """None if there are a config with a model's type, or one of the project's networks."""
    try:
        saved = unwrap.read(path)
        config = _config_inside(path, saved) or _config_beside(path)
    except ValueError as error:
        return str(error)
    model = config.get("model") if isinstance(config, dict) else None
    if isinstance(model, dict) and "type" in model:
        return None
    if any(unwrap.find(saved, marks, inner=_INNER) for marks in _MARKS.values()):
        return None
    return f"no k-diffusion config in it or beside it, as {_beside(path).name}"


def files(path: Path, config: Mapping[str, Any] | str | Path | None = None) -> list[Path]:
    """The file and its config: the told one, else the file's own, else the one beside it."""
    if config is not None:
        return [path, *([user_path(config)] if isinstance(config, str | Path) else [])]
    read_beside = _config_inside(path, unwrap.read(path)) is None and _beside(path).is_file()
    return [path, *([_beside(path)] if read_beside else [])]


def load(
    path: Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    shape: Sequence[int] | None = None,
    precond: Precond | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser, on the CPU, in `dtype` (None: the file's). `weights` chooses among several
    networks (see `unwrap`).

    `config` is the config of the training, or its file, for a checkpoint that has none. The other
    keywords replace its values.
    ValueError if the config describes an unsupported network or conditioning.
    """
    saved = unwrap.read(path)
    config = _config(path, saved, config)
    model = config["model"] = {
        **config["model"],
        **({} if sigma_min is None else {"sigma_min": sigma_min}),
        **({} if sigma_max is None else {"sigma_max": sigma_max}),
    }
    if model.get("type") not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ValueError(
            f"{path}: a network of type {model.get('type')!r} is not supported; {known} are"
        )
    try:
        make = NETWORKS[model["type"]](config)
        shape = shape or (model["input_channels"], *model["input_size"])
        check_shape(shape, model["input_channels"])
        process, told = _process(model) if precond is None else (precond, "as told")
        chosen, weighted = unwrap.take(saved, _MARKS[model["type"]], weights, inner=_INNER)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: its config is not complete: {error} (give config= a whole one)"
        ) from error
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error

    def bounded() -> nn.Module:
        with at_most(len(chosen.tensors)):  # whatever depths the config asks for
            return make()

    return Denoiser(
        torch_zip.fill(path, bounded, chosen.tensors, dtype),
        process,
        shape=shape,
        classes=[str(i) for i in range(_classes(config))],
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        name=path.stem,
        facts={
            "format": "k-diffusion",
            **weighted,
            "network": f"{model['type']}, from the config",
            "parameterisation": told,
        },
    )


def _process(model: Mapping[str, Any]) -> tuple[Precond, str]:
    """The preconditioner of a config's model, and how it was decided."""
    numbers = {
        "sigma_data": _number(model, "sigma_data", 1.0),
        "sigma_min": _number(model, "sigma_min", SIGMA_MIN),
        "sigma_max": _number(model, "sigma_max", SIGMA_MAX),
    }
    assumed = ", ".join(f"{key} {value:g}" for key, value in numbers.items() if key not in model)
    told = f"EDM's, sigma_data {numbers['sigma_data']:g}, from the config"
    return edm(**numbers), told + (f"; k-diffusion's own {assumed}, assumed" if assumed else "")


def _config_inside(path: Path, saved: Any) -> Any:
    """The config in the file itself, or None. ValueError if it is not JSON."""
    if isinstance(saved, dict) and "config" in saved:
        return saved["config"]
    try:
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get("config")
    except (OSError, SafetensorError):
        return None  # torch.save's
    return None if config is None else parse_json(config, f"{path}: its config")


def _config_beside(path: Path) -> Any:
    return _from_file(_beside(path)) if _beside(path).is_file() else None


def _from_file(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"there is no config {file}")
    return read_json(file, _MAX_CONFIG_BYTES)


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _config(path: Path, saved: Any, given: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    if isinstance(given, str | Path):
        found = _from_file(user_path(given))
    else:
        found = given or _config_inside(path, saved) or _config_beside(path)
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise MissingSetting(
            f"{path}: no k-diffusion config in it or beside it, as {_beside(path).name}: give "
            "config= the JSON that it was trained with"
        )
    return dict(found)


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
    """One setting. ValueError if it is there but not a number."""
    value = settings.get(key, default)
    if type(value) not in (int, float):
        raise ValueError(f"its config has no number as {key}, but {value!r:.80}")
    return float(value)


NETWORKS: dict[str, Callable[[Mapping[str, Any]], Callable[[], nn.Module]]] = {
    "image_v1": _image_v1,
    "image_transformer_v2": _image_transformer_v2,
}
