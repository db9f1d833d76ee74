"""`.pt` files of OpenAI's guided-diffusion and improved-diffusion, and of the models that others
trained with their scripts.

OpenAI's files hold a network's tensors and nothing else. Other scripts put them into wrappers,
which `unwrap` knows. The architecture is read from the names and shapes of the tensors. Heads,
noise schedule and clock leave no trace there: they are taken from the published model that has
exactly these shapes, or must be told, by the names of the scripts' flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import MissingSetting, check_shape, torch_zip, unwrap
from kdiff.checkpoints.openai_models import IMAGE_SIZES, PUBLISHED
from kdiff.counts import whole_number
from kdiff.denoiser import Denoiser
from kdiff.networks import learns_variance
from kdiff.networks.openai_unet import OpenAIUNet
from kdiff.preconditioners import Precond, precond

NAME = "openai"
MARKS = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.2.weight")
HEADS = ("num_heads", "num_head_channels")
TRACELESS = (
    *HEADS,
    "use_new_attention_order",
    "noise_schedule",
    "diffusion_steps",
    "rescale_timesteps",
)
# The defaults of both projects' scripts.
_DEFAULTS = {"use_new_attention_order": False, "diffusion_steps": 1000}
_SCHEDULES = ("linear", "cosine")

_Shapes = Mapping[str, Sequence[int]]


def detect(path: Path) -> str | None:
    """None if a state dict with the names of these networks was saved."""
    try:
        saved = unwrap.read(path)
    except ValueError as error:
        return str(error)
    return unwrap.missing(saved, MARKS)


def load(
    path: Path,
    *,
    shape: Sequence[int] | None = None,
    num_heads: int | None = None,
    num_head_channels: int | None = None,
    use_new_attention_order: bool | None = None,
    noise_schedule: str | None = None,
    diffusion_steps: int | None = None,
    rescale_timesteps: bool | None = None,
    precond: Precond | None = None,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> Denoiser:
    """The denoiser, on the CPU, in `dtype` (None: the file's). It predicts eps, and it may
    have learned a variance.

    Most settings are flags that the model was trained with. Those not given are taken from the
    published model of the same shapes. If there is no such model, `num_heads` or
    `num_head_channels`, and `noise_schedule` (linear or cosine), are needed; so is
    `rescale_timesteps` if `diffusion_steps` are not 1000, and `shape` `(channels, height, width)`
    if the scripts have no image size with these multipliers. `precond` replaces the noise schedule,
    for networks that others trained in another way. `weights`: see `unwrap`.
    ValueError says what is missing, or which variant is not supported.
    """
    chosen, told = unwrap.take(unwrap.read(path), MARKS, weights)
    tensors = chosen.tensors
    flags = {
        "num_heads": num_heads,
        "num_head_channels": num_head_channels,
        "use_new_attention_order": use_new_attention_order,
        "noise_schedule": noise_schedule,
        "diffusion_steps": diffusion_steps,
        "rescale_timesteps": rescale_timesteps,
    }
    try:
        architecture = read_architecture({key: tuple(v.shape) for key, v in tensors.items()})
        if shape is None:
            told["image size"] = "the scripts' size for these channel multipliers, assumed"
        shape = choose_shape(shape, architecture)
        settings, origins = choose_settings(architecture, flags, needs_schedule=precond is None)
        process = precond or make_precond(settings)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error
    network = torch_zip.fill(path, partial(make_network, architecture, settings), tensors, dtype)
    return Denoiser(
        network,
        process,
        shape=shape,
        classes=[str(i) for i in range(architecture["num_classes"])],
        learned_variance=learns_variance(architecture, shape),
        name=path.stem,
        facts={
            "format": "OpenAI guided-diffusion or improved-diffusion, a state dict",
            **told,
            "network": "OpenAIUNet, by the tensors' names and shapes",
            **origins,
            "parameterisation": "eps, as in all of OpenAI's models; the file does not say",
        },
    )


def read_architecture(shapes: _Shapes) -> dict[str, Any]:
    """The arguments of `OpenAIUNet`, as the names and shapes of its tensors determine them.

    ValueError for a relative of these networks (a classifier, an upsampler, ..).
    """
    if not any(key.startswith("output_blocks.") for key in shapes):
        raise ValueError("a classifier (it has no output blocks), not a diffusion model")
    if any("transformer_blocks" in key for key in shapes):
        raise ValueError(
            "a network with text conditioning (transformer blocks), as Stable Diffusion's: kdiff "
            "reads that from a folder of diffusers, whose scripts convert it"
        )
    try:
        model_channels = shapes["time_embed.0.weight"][1]
        resampling, num_res_blocks = _resampling(shapes)
        levels, rest = divmod(_count(shapes, "output_blocks"), num_res_blocks + 1)
        if rest:
            raise ValueError("its number of blocks is not the same at all levels: not supported")
        firsts = [f"input_blocks.{1 + i * (num_res_blocks + 1)}" for i in range(levels)]
        widths = [shapes[f"{first}.0.out_layers.3.weight"][0] for first in firsts]
        in_channels, out_channels = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
        embedded = shapes[f"{firsts[0]}.0.emb_layers.1.weight"][0]
    except (KeyError, IndexError) as error:
        raise ValueError(f"a network of this kind has a tensor {error}") from error
    if out_channels in (in_channels // 2, in_channels) and in_channels == 6:
        raise ValueError("an upsampler (it also sees a smaller image): not supported")
    if out_channels not in (in_channels, 2 * in_channels):
        raise ValueError(f"{in_channels} channels in and {out_channels} out: not supported")
    return {
        "model_channels": model_channels,
        "channel_mult": tuple(width / model_channels for width in widths),
        "num_res_blocks": num_res_blocks,
        "attention_levels": tuple(
            i for i, first in enumerate(firsts) if f"{first}.1.qkv.weight" in shapes
        ),
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_classes": shapes.get("label_emb.weight", (0,))[0],
        "use_scale_shift_norm": embedded == 2 * widths[0],
        "resblock_updown": resampling == "block",
        "conv_resample": resampling != "pool",
    }


def _resampling(shapes: _Shapes) -> tuple[str, int]:
    """How the image is resized, and the number of residual blocks of a level. The first output
    block that ends by resizing is the last of its level; the way up has one block more a level."""
    outputs = range(_count(shapes, "output_blocks"))
    for kind, layer in (("conv", "conv.weight"), ("block", "in_layers.0.weight")):
        for i in outputs:
            if any(f"output_blocks.{i}.{j}.{layer}" in shapes for j in (1, 2)):
                return kind, i
    for i in range(1, len(outputs)):  # pooling has no tensors: a gap in the input blocks
        if f"input_blocks.{i}.0.in_layers.0.weight" not in shapes:
            return "pool", i - 1
    return "conv", len(outputs) - 1  # one level


def _count(shapes: _Shapes, name: str) -> int:
    return len({key.split(".")[1] for key in shapes if key.startswith(f"{name}.")})


def choose_shape(shape: Sequence[int] | None, architecture: Mapping[str, Any]) -> Sequence[int]:
    channels, mult = architecture["in_channels"], architecture["channel_mult"]
    factor = 2 ** (len(mult) - 1)
    if shape is None and mult in IMAGE_SIZES:
        shape = (channels, IMAGE_SIZES[mult], IMAGE_SIZES[mult])
    if shape is None:
        raise MissingSetting(
            "no image size is known with channel multipliers "
            f"{', '.join(f'{m:g}' for m in mult)}: give shape=({channels}, height, width)"
        )
    check_shape(shape, channels, factor)
    return shape


def choose_settings(
    architecture: Mapping[str, Any], flags: Mapping[str, Any], needs_schedule: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that leave no trace in names and shapes, and the source of each. Without
    `needs_schedule`, the noise schedule may be missing."""
    told = {key: value for key, value in flags.items() if value is not None}
    for key in (*HEADS, "diffusion_steps"):
        if key in told:
            told[key] = whole_number(key, told[key], 1)
    model = next((model for model in PUBLISHED if model.fits(architecture)), None)
    other = _DEFAULTS if model is None else {key: getattr(model, key) for key in TRACELESS}
    replaced = {*told, *(HEADS if told.keys() & set(HEADS) else ())}
    if not needs_schedule:
        replaced |= {"noise_schedule", "diffusion_steps", "rescale_timesteps"}
    other = {key: value for key, value in other.items() if key not in replaced}
    settings = {**other, **told}
    if not settings.keys() & set(HEADS) or (needs_schedule and "noise_schedule" not in settings):
        schedule = ", and noise_schedule (or precond)" if needs_schedule else ""
        raise MissingSetting(
            "none of OpenAI's published models has these shapes: give num_heads or "
            f"num_head_channels{schedule}, as it was trained with"
        )
    if "rescale_timesteps" not in settings and settings.get("diffusion_steps", 1000) != 1000:
        raise MissingSetting(
            f"with {settings['diffusion_steps']} diffusion_steps give rescale_timesteps (the "
            "default of improved-diffusion is True, of guided-diffusion False)"
        )
    source = "the scripts' defaults" if model is None else f"as the published {model.files}"
    facts = {"told": _listed(told), "assumed": other and f"{source}: {_listed(other)}"}
    return settings, {key: str(fact) for key, fact in facts.items() if fact}


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def make_precond(settings: Mapping[str, Any]) -> Precond:
    kind, steps = settings["noise_schedule"], settings["diffusion_steps"]
    if kind not in _SCHEDULES:
        raise ValueError(f"noise_schedule must be one of {', '.join(_SCHEDULES)}, not {kind!r}")
    # The scripts scale Ho et al.'s linear betas, which are for 1000 steps.
    scaled = {"start": 1e-4 * 1000 / steps, "end": 0.02 * 1000 / steps} if kind == "linear" else {}
    return precond("eps", alphas_cumprod=kind, steps=steps, **scaled)


def make_network(architecture: Mapping[str, Any], settings: Mapping[str, Any]) -> OpenAIUNet:
    rescaled, steps = (
        settings.get("rescale_timesteps", False),
        settings.get("diffusion_steps", 1000),
    )
    return OpenAIUNet(
        **architecture,
        num_heads=settings.get("num_heads", 1),
        num_head_channels=settings.get("num_head_channels", 0),
        use_new_attention_order=settings["use_new_attention_order"],
        time_scale=1000 / steps if rescaled else 1.0,
    )
