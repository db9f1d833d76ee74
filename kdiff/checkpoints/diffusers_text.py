"""The text encoders and tokenizers of a folder that diffusers' `save_pretrained` wrote.

The classes are transformers' own, from a list of known ones; no name in a file is imported, and
nothing is downloaded. kdiff reads config.json and the weights itself, and hands them over, so that
transformers looks for no other files. Of tokenizers it reads vocabularies and settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdiff.checkpoints.diffusers_model import check_report, check_size
from kdiff.checkpoints.model_folder import (
    config_and_weights,
    is_there,
    read_json,
    tensors_in,
    weight_files,
)
from kdiff.counts import whole_number
from kdiff.downloads import check_file
from kdiff.messages import one_line
from kdiff.networks.diffusers_models import DiffusersNetwork
from kdiff.text import LAYOUTS, Encoder, Part, TextEncoders

_WEIGHTS = {"safetensors": "model", "bin": "pytorch_model"}
# What config.json may say of the network: sizes and the like. Other keys, such as the name of an
# attention kernel, would have transformers fetch and run something.
_SETTINGS = {
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"),
    *("num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "use_attention_mask"),
    *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets"),
    *("relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj"),
    *("dense_act_fn", "is_gated_act"),
}
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
_MOST_EXTRA = 1000  # tokens that T5's tokenizer makes up; it is 100
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)


def text_encoders(
    path: Path, index: Mapping[str, Any], network: DiffusersNetwork, variant: str | None
) -> TextEncoders | str | None:
    """The encoders of the pipeline in `path`, or why prompts cannot be read; None if its network
    takes none. Nothing is loaded yet."""
    if network.texts is None:
        needs = "encoder_hidden_states" in network.needs
        return "its network is not of a layout that kdiff knows" if needs else None
    layout = LAYOUTS[network.texts]
    sources: dict[str, Source | None] = {}
    for part in layout.parts:
        found = _source(path, index, part, variant)
        if isinstance(found, str):
            return found
        sources[part.folder] = found
    zeros = network.texts == "Stable Diffusion XL"
    return TextEncoders(
        *(path, layout, sources, network.width),
        zeros=zeros and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _source(
    path: Path, index: Mapping[str, Any], part: Part, variant: str | None
) -> Source | str | None:
    """Where the part is; why it cannot be read; None if the pipeline leaves it out."""
    kinds = {name: _class(index.get(name)) for name in (part.folder, part.tokenizer)}
    if part.optional and kinds[part.folder] is None:
        return None
    for name, kind in kinds.items():
        if kind is None:
            return f"model_index.json names no {name}"
        if not is_there(path / name):
            return f"the folder has no {name}"
    encoder, tokenizer = kinds.values()
    if encoder != part.kind:
        return f"its {part.folder} is a {encoder}, where kdiff reads a {part.kind}"
    if tokenizer not in _TOKENIZERS:
        return f"its {part.tokenizer} is a {tokenizer}, which is not supported"
    return Source(path / part.folder, path / part.tokenizer, part, tokenizer, variant)


def _class(entry: Any) -> str | None:
    """Of transformers, which model_index.json names as `["transformers", "CLIPTextModel"]`."""
    named = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    return entry[1] if named else None


@dataclass(frozen=True)
class Source:
    """An encoder in `folder` and its tokenizer, a class of transformers, in another."""

    folder: Path
    tokenizer_folder: Path
    part: Part
    tokenizer: str
    variant: str | None

    def files(self) -> list[Path]:
        """All files that `load` reads."""
        index, weights = weight_files(self.folder, self.variant, _WEIGHTS)
        return [self.folder / "config.json", *index, *weights, *self._tokenizer_files()]

    def load(self, device: torch.device | str, dtype: torch.dtype) -> Encoder:
        """On the device, in `dtype`. ValueError if anything is missing, or does not fit."""
        tokenizer = self._tokenizer()
        network = _network(self.part.kind, self.folder, self.variant, dtype)
        return Encoder(tokenizer, network.to(device), self.part.tokens)

    def _tokenizer_files(self) -> list[Path]:
        named = (self.tokenizer_folder / name for name in _TOKENIZER_FILES)
        return [file for file in named if is_there(file)]

    def _tokenizer(self) -> Any:
        import transformers

        files = self._tokenizer_files()
        if not files:
            raise ValueError(f"{self.tokenizer_folder} has no vocabulary")
        for file in files:
            check_file(file)
        _check_tokenizer(self.tokenizer_folder / "tokenizer_config.json")
        kind = getattr(transformers, self.tokenizer)
        try:
            return kind.from_pretrained(self.tokenizer_folder, local_files_only=True)
        except Exception as error:  # the exceptions depend on the version, and on what is damaged
            raise ValueError(f"{self.tokenizer_folder}: {one_line(error, 200)}") from error


def _check_tokenizer(file: Path) -> None:
    """ValueError if its settings lead out of the folder, or would fill the memory."""
    said = read_json(file) if is_there(file) else {}
    for key in ("vocab_file", "merges_file", "tokenizer_file"):
        if said.get(key) is not None:
            raise ValueError(f"{file} names a {key}: it must lie beside it, under its usual name")
    whole_number(f"{file}: extra_ids", said.get("extra_ids", 0), 0, _MOST_EXTRA)


def _network(name: str, folder: Path, variant: str | None, dtype: torch.dtype) -> nn.Module:
    """The text encoder in a folder, with its weights, on the CPU."""
    import transformers

    config, weights = config_and_weights(folder, variant, _WEIGHTS)
    kind = getattr(transformers, name)
    config = {key: value for key, value in config.items() if key in _SETTINGS}
    try:
        settings = kind.config_class(**config)
        check_size(lambda: kind(settings), config, folder, weights)
        with _no_bars():
            network, report = kind.from_pretrained(
                None,
                config=settings,
                state_dict={key: tensor for file in weights for key, tensor in tensors_in(file)},
                dtype=dtype,
                output_loading_info=True,
            )
    except Exception as error:  # see above
        if str(folder) in str(error):
            raise
        reason = one_line(error, 200)
        raise ValueError(f"{folder}: weights and config.json do not fit: {reason}") from error
    check_report(report, folder)
    return network.eval().requires_grad_(False)


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers shows no progress bars meanwhile."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
