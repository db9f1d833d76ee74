"""Which text encoders a kind of network was trained with, and how their embeddings are joined.

Written after the pipelines of diffusers: Stable Diffusion (Rombach et al. 2022), Stable Diffusion
XL (Podell et al. 2023), Stable Diffusion 3 (Esser et al. 2024) and Flux (Black Forest Labs 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from kdiff.text.encoder import Embedded

CLIP, CLIP_PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """A text encoder: its folder, its class in transformers, the tokens that it reads (None: what
    its tokenizer says), and whether a pipeline may be without it."""

    folder: str
    kind: str
    tokens: int | None = None
    optional: bool = False

    @property
    def tokenizer(self) -> str:
        return self.folder.replace("text_encoder", "tokenizer")


@dataclass(frozen=True)
class Layout:
    """`join(embedded, width)` makes the conditions, `[u, ..]` each, of what the parts say of u
    texts: None for a part that is not there. `width` is the number of channels of the embeddings
    that the network attends to."""

    parts: Sequence[Part]
    join: Callable[[Sequence[Embedded | None], int], Rows]


def _stable_diffusion(embedded: Sequence[Embedded | None], width: int) -> Rows:
    (clip,) = _there(embedded)
    return {"encoder_hidden_states": clip.last}


def _stable_diffusion_xl(embedded: Sequence[Embedded | None], width: int) -> Rows:
    clips = _there(embedded)
    hidden = torch.cat([clip.penultimate for clip in clips], dim=-1)
    return {"encoder_hidden_states": hidden, "text_embeds": _pooled(clips[-1:])}


def _stable_diffusion_3(embedded: Sequence[Embedded | None], width: int) -> Rows:
    *clips, t5 = embedded
    both = _there(clips)
    hidden = torch.cat([clip.penultimate for clip in both], dim=-1)
    hidden = pad(hidden, (0, width - hidden.shape[-1]))
    absent = hidden.new_zeros(len(hidden), _SD3_TOKENS, width)
    longer = absent if t5 is None else t5.last.to(hidden.dtype)
    return {
        "encoder_hidden_states": torch.cat([hidden, longer], dim=1),
        "pooled_projections": _pooled(both),
    }


def _flux(embedded: Sequence[Embedded | None], width: int) -> Rows:
    clip, t5 = _there(embedded)
    return {"encoder_hidden_states": t5.last, "pooled_projections": _pooled([clip])}


def _there(embedded: Sequence[Embedded | None]) -> list[Embedded]:
    return [one for one in embedded if one is not None]


def _pooled(embedded: Sequence[Embedded]) -> Tensor:
    return torch.cat([one.pooled for one in embedded if one.pooled is not None], dim=-1)


_SD3_TOKENS, _FLUX_TOKENS = 256, 512  # diffusers' max_sequence_length

# By the name that adapters of networks give in `texts`.
LAYOUTS: Mapping[str, Layout] = {
    "Stable Diffusion": Layout([Part("text_encoder", CLIP)], _stable_diffusion),
    "Stable Diffusion XL": Layout(
        [Part("text_encoder", CLIP, optional=True), Part("text_encoder_2", CLIP_PROJECTED)],
        _stable_diffusion_xl,
    ),
    "Stable Diffusion 3": Layout(
        [
            Part("text_encoder", CLIP_PROJECTED),
            Part("text_encoder_2", CLIP_PROJECTED),
            Part("text_encoder_3", T5, _SD3_TOKENS, optional=True),
        ],
        _stable_diffusion_3,
    ),
    "Flux": Layout([Part("text_encoder", CLIP), Part("text_encoder_2", T5, _FLUX_TOKENS)], _flux),
}
