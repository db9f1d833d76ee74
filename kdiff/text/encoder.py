"""One text encoder of transformers and its tokenizer: from texts to embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdiff.counts import whole_number

BATCH = 16  # texts that are encoded together


class Embedded(NamedTuple):
    """Of u texts: `last` and `penultimate` `[u, tokens, channels]`, the hidden states after all
    layers and before the last one; `pooled` `[u, channels]`, None for an encoder without it."""

    last: Tensor
    penultimate: Tensor
    pooled: Tensor | None

    @classmethod
    def joined(cls, parts: Sequence[Embedded]) -> Embedded:
        last, penultimate, pooled = zip(*parts, strict=True)
        return cls(
            torch.cat(last),
            torch.cat(penultimate),
            None if pooled[0] is None else torch.cat(pooled),
        )


class Encoder:
    """Texts to `Embedded`, each padded and cut to `tokens`; None: what the tokenizer says."""

    def __init__(self, tokenizer: Any, network: Any, tokens: int | None = None):
        self.tokenizer, self.network = tokenizer, network
        self.tokens = tokens or tokenizer.model_max_length
        most = getattr(network.config, "max_position_embeddings", self.tokens)
        whole_number("model_max_length, the tokens that are read,", self.tokens, 3, most)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Embedded:
        """On the CPU. A warning names what is cut off a text that is too long."""
        for text in texts:
            self._warn_if_cut(text)
        starts = range(0, len(texts), BATCH)
        return Embedded.joined([self._some(texts[i : i + BATCH]) for i in starts])

    def _some(self, texts: Sequence[str]) -> Embedded:
        found = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokens,
            truncation=True,
            return_tensors="pt",
        )
        device = self.network.device
        # Nearly all pipelines let the encoder see the padding too, as their networks were trained.
        masked = getattr(self.network.config, "use_attention_mask", False)
        given = {"attention_mask": found.attention_mask.to(device)} if masked else {}
        answer = self.network(found.input_ids.to(device), output_hidden_states=True, **given)
        pooled = answer.get("text_embeds", answer.get("pooler_output"))
        return Embedded(
            answer.last_hidden_state.cpu(),
            answer.hidden_states[-2].cpu(),
            None if pooled is None else pooled.cpu(),
        )

    def _warn_if_cut(self, text: str) -> None:
        tokens = self.tokenizer(text, padding=False, truncation=False).input_ids
        if len(tokens) > self.tokens:
            cut = self.tokenizer.decode(tokens[self.tokens - 1 : -1])
            warnings.warn(
                f"the prompt is longer than the {self.tokens} tokens that "
                f"{type(self.network).__name__} reads, which leaves out {cut!r:.200}",
                stacklevel=4,
            )
