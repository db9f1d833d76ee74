"""The classifiers of OpenAI's guided-diffusion, and others trained by its `classifier_train.py`.

The files hold a network's tensors and nothing else. Heads of 64 channels, 1,000 timesteps, and the
noise schedule are those of the scripts: cosine for images of 64 x 64, linear for larger ones, as
the published classifiers have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kdiff.checkpoints import torch_zip, unwrap
from kdiff.checkpoints.openai_models import IMAGE_SIZES
from kdiff.classifiers.classifier import Classifier
from kdiff.networks.openai_classifier import OpenAIClassifier
from kdiff.preconditioners import precond

MARKS = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.0.in_layers.2.weight",
    "out.0.weight",
)
POOL, MEAN = "out.2.positional_embedding", "out.3.weight"

_Shapes = Mapping[str, Sequence[int]]


def detect(path: Path) -> str | None:
    """None if the state dict of such a classifier was saved."""
    try:
        saved = unwrap.read(path)
    except ValueError as error:
        return str(error)
    missing = unwrap.missing(saved, MARKS)
    if missing is None and any(key.startswith("output_blocks.") for key in _names(saved)):
        return "a diffusion model, not a classifier"
    return missing


def load(path: Path, noise_schedule: str | None = None) -> Classifier:
    """The classifier in float32 on the CPU. `noise_schedule`, `linear` or `cosine`, if the scripts'
    choice for its image size is not what it was trained with. ValueError says what does not fit."""
    found, told = unwrap.take(unwrap.read(path), MARKS)
    shapes = {key: tuple(value.shape) for key, value in found.tensors.items()}
    try:
        architecture = read_architecture(shapes)
        size = image_size(architecture)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    network = torch_zip.fill(
        path, partial(OpenAIClassifier, **architecture), found.tensors, torch.float32
    )
    schedule = noise_schedule or ("cosine" if size <= 64 else "linear")
    return Classifier(
        network.to(memory_format=torch.channels_last),
        precond("eps", alphas_cumprod=schedule, steps=1000),
        shape=(architecture["in_channels"], size, size),
        classes=[str(i) for i in range(architecture["num_classes"])],
        name=path.stem,
        path=path,
        facts={
            "format": "OpenAI guided-diffusion, the state dict of a classifier",
            **told,
            "noise schedule": f"{schedule}, 1000 steps"
            + ("" if noise_schedule else ", as the published classifier of this image size"),
        },
    )


def read_architecture(shapes: _Shapes) -> dict[str, Any]:
    """The arguments of `OpenAIClassifier`, as the names and shapes of its tensors determine them.
    ValueError for a classifier of another kind."""
    try:
        model_channels = shapes["time_embed.0.weight"][1]
        depth = _depth(shapes)
        levels = _count(shapes) // (depth + 1)
        firsts = [f"input_blocks.{1 + i * (depth + 1)}" for i in range(levels)]
        widths = [shapes[f"{first}.0.out_layers.3.weight"][0] for first in firsts]
        embedded = shapes[f"{firsts[0]}.0.emb_layers.1.weight"][0]
        if POOL in shapes:
            tokens, classes = shapes[POOL][1] - 1, shapes["out.2.c_proj.weight"][0]
        elif MEAN in shapes:
            tokens, classes = 0, shapes[MEAN][0]
        else:
            raise ValueError("a classifier with spatial pooling: not supported")
    except (KeyError, IndexError) as error:
        raise ValueError(f"a classifier of this kind has a tensor {error}") from error
    return {
        "model_channels": model_channels,
        "channel_mult": tuple(width / model_channels for width in widths),
        "num_res_blocks": depth,
        "attention_levels": tuple(
            i for i, first in enumerate(firsts) if f"{first}.1.qkv.weight" in shapes
        ),
        "num_classes": classes,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "pooled_size": round(tokens**0.5),
        "use_scale_shift_norm": embedded == 2 * widths[0],
        "resblock_updown": not any(k.endswith(".0.op.weight") for k in shapes)
        and f"input_blocks.{depth + 1}.0.in_layers.0.weight" in shapes,
        "conv_resample": any(k.endswith(".0.op.weight") for k in shapes),
    }


def image_size(architecture: Mapping[str, Any]) -> int:
    """The attention pool has an embedding for each position; without it, the scripts' size."""
    mult = tuple(architecture["channel_mult"])
    size = architecture["pooled_size"] * 2 ** (len(mult) - 1) or IMAGE_SIZES.get(mult)
    if not size:
        raise ValueError("a classifier without attention pool, of no image size of the scripts")
    return size


def _depth(shapes: _Shapes) -> int:
    """The number of residual blocks of a level. Between two levels stands one input block more,
    which resizes: a convolution, nothing at all (pooling has no tensors), or a residual block,
    which looks like the others, but is never followed by attention. As the scripts have it, the
    last level has attention."""
    count = _count(shapes)
    blocks = [f"input_blocks.{i}.0.in_layers.0.weight" in shapes for i in range(count)]
    attention = [f"input_blocks.{i}.1.qkv.weight" in shapes for i in range(count)]
    if not all(blocks[1:]):
        depth = blocks[1:].index(False)
    else:
        trailing = attention[::-1]
        depth = trailing.index(False) if True in trailing else 0
    if depth == 0 or count % (depth + 1):
        raise ValueError("the number of blocks at each of its levels cannot be told: not supported")
    return depth


def _count(shapes: _Shapes) -> int:
    return 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("input_blocks."))


def _names(saved: Any) -> list[str]:
    return [key for one in unwrap.find(saved, MARKS) for key in one.tensors]
