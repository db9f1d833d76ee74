"""The message for a file that no format reads: the nearest format and its reason, on one line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from kdiff.checkpoints import torch_zip, unwrap
from kdiff.downloads import check_file, unfinished

# Names of tensors in common networks, with # for numbers. Networks that kdiff reads stand under the
# name of their format.
_MARKS: Mapping[str, tuple[str, ...]] = {
    "edm-weights": ("map_layer#.weight", "enc.#x#_conv.weight", "enc.#x#_block#.conv#.weight"),
    "openai": (
        "time_embed.#.weight",
        "input_blocks.#.#.weight",
        "middle_block.#.in_layers.#.weight",
        "out.#.weight",
    ),
    "score_sde": ("all_modules.#.weight", "all_modules.#.Conv_#.weight"),
    "lucidrains": ("init_conv.weight", "time_mlp.#.weight", "final_conv.weight"),
    "k-diffusion": ("mapping.#.weight", "proj_in.weight", "proj_out.weight"),
    "diffusers' U-Net": (
        "conv_in.weight",
        "time_embedding.linear_#.weight",
        "down_blocks.#.resnets.#.conv#.weight",
        "conv_norm_out.weight",
    ),
    "diffusers' transformer": (
        "transformer_blocks.#.attn#.to_q.weight",
        "transformer_blocks.#.ff.net.#.proj.weight",
    ),
    "DiT in its authors' form": (
        "x_embedder.proj.weight",
        "t_embedder.mlp.#.weight",
        "final_layer.linear.weight",
    ),
    "an autoencoder": ("encoder.conv_in.weight", "decoder.conv_in.weight"),
    "a LoRA": ("lora_down.weight", "lora_up.weight"),
}
_FOLDER = "give the folder that save_pretrained wrote, with its config.json"
_ADVICE = {
    "diffusers' U-Net": _FOLDER,
    "diffusers' transformer": _FOLDER,
    "DiT in its authors' form": "convert it with diffusers' scripts",
    "an autoencoder": "it denoises nothing: give the network that it belongs to",
    "a LoRA": "it is part of a network: merge it into that first",
}
_NEAR = 0.5  # of the names
_STATE_DICT = "state dict"
_BY_ENDING = {".safetensors": "kdiff", ".pkl": "edm", ".pt": "openai", ".pth": "openai"}


def refusal(path: Path, missed: Mapping[str, str]) -> str:
    """The message. `missed` says why each format did not take the file at `path`. ValueError if the
    file is empty."""
    check_file(path)
    begun = f"{path} is of no format that kdiff reads"
    unended = unfinished(path)
    if unended:
        return f"{begun}: it is {unended}"
    if path.is_dir():
        return f"{begun}; nearest: {_reason(missed, 'diffusers')}"
    with open(path, "rb") as file:
        head = file.read(9)
    if head.startswith(b"PK") or head[8:] == b"{":
        try:
            return f"{begun}; {_nearest(unwrap.read(path), missed)}"
        except ValueError as error:
            return f"{begun}; nearest: a {_STATE_DICT}: {error}"
    if head and torch_zip.OLD.startswith(head):
        return f"{begun}; nearest: a {_STATE_DICT}: {missed['openai']}"
    nearest = "edm" if head.startswith(b"\x80") else _BY_ENDING.get(path.suffix.lower())
    if nearest:
        return f"{begun}; nearest: {_reason(missed, nearest)}"
    return f"{begun}: it is none of {', '.join(missed)} (see `kdiff list formats`)"


def _reason(missed: Mapping[str, str], name: str) -> str:
    return f"{name}: {missed[name]}"


def _nearest(saved: Any, missed: Mapping[str, str]) -> str:
    """The network that the tensors seem to belong to, by their names, and their wrapper."""
    names, around = unwrap.contents(saved)
    if not names:
        return f"nearest: a {_STATE_DICT}, but it holds no tensors by name"
    endings = {ending for name in names for ending in _endings(name)}
    score, name = max((_share(endings, marks), name) for name, marks in _MARKS.items())
    near = f"nearest: {_reason({**_ADVICE, **missed}, name)}; " if score >= _NEAR else ""
    seen = f"it holds {len(names)} tensors{around and f' in {around}'}, such as {names[0]:.60}"
    return f"{near}{seen}; for a network of your own use kdiff.wrap"


def _endings(name: str) -> Iterable[str]:
    """`a.1.b` -> `a.#.b`, `#.b`, `b`."""
    parts = re.sub(r"\d+", "#", name).split(".")
    return (".".join(parts[i:]) for i in range(len(parts)))


def _share(endings: Collection[str], marks: Collection[str]) -> float:
    return sum(mark in endings for mark in marks) / len(marks)
