"""Prompts as conditions: lists of embeddings, one for each sample, which equal prompts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdiff.text.encoders import TextEncoders

Rows = dict[str, list[Tensor]]


def as_texts(name: str, value: Any, n: int | None = None) -> list[str]:
    """One text, for all `n`, or a list of `n`. ValueError otherwise; None: a list of any length."""
    texts = [value] * (n or 1) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{name} must be a text or a list of texts, not {value!r:.80}")
    if not texts or n not in (None, len(texts)):
        raise ValueError(f"{name} must be one text, or {n or 1} of them, not {len(texts)}")
    return list(texts)


def rows(
    encoders: TextEncoders,
    prompts: Sequence[str],
    negative: Sequence[str] | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Rows:
    """Of each condition X, `X`, `null_X` for no prompt, and if there is a `negative` for each
    prompt `negative_X`. Each different text is encoded once. Errors as `TextEncoders.embed`."""
    nothing = [] if encoders.zeros else [""]
    texts = list(dict.fromkeys([*prompts, *(negative or ()), *nothing]))
    made: Rows = {}
    for key, values in encoders.embed(texts, device, dtype).items():
        of = dict(zip(texts, values, strict=True))
        null = torch.zeros_like(values[0]) if encoders.zeros else of[""]
        made[key] = [of[text] for text in prompts]
        made[f"null_{key}"] = [null] * len(prompts)
        if negative is not None:
            made[f"negative_{key}"] = [of[text] for text in negative]
    return made
