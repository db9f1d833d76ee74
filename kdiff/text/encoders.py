"""The text encoders of one model, which are in memory only while they encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kdiff.hashes import sha256_of_files
from kdiff.text.encoder import Encoder
from kdiff.text.layouts import Layout


class Source(Protocol):
    """Where an encoder comes from."""

    def load(self, device: torch.device | str, dtype: torch.dtype) -> Encoder: ...

    def files(self) -> list[Path]:
        """All files that `load` reads."""
        ...


@dataclass(frozen=True)
class TextEncoders:
    """The encoders of a `layout`, by folder in `root`; None for one that is left out.

    `width`: of the embeddings that the network attends to. `zeros`: the embedding of "nothing" is
    zero, not the one of the empty text (`force_zeros_for_empty_prompt` in model_index.json).
    """

    root: Path
    layout: Layout
    sources: Mapping[str, Source | None]
    width: int
    zeros: bool = False

    def embed(
        self, texts: Sequence[str], device: torch.device | str, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The conditions of these texts, `[u, ..]` each, on the CPU. Each encoder is read, used on
        the device in `dtype`, and freed before the next one is read.

        ValueError if an encoder cannot be read, or transformers is not there.
        """
        if find_spec("transformers") is None:
            raise ValueError(f"{self.root}: prompts need transformers: pip install 'kdiff[text]'")
        sources = [self.sources[part.folder] for part in self.layout.parts]
        found = [None if s is None else s.load(device, dtype)(texts) for s in sources]
        return self.layout.join(found, self.width)

    def sha256(self) -> str:
        """The hash of all files that are read for prompts."""
        sources = [source for source in self.sources.values() if source is not None]
        return sha256_of_files([file for s in sources for file in s.files()], self.root)
