"""The networks of diffusers, called as kdiff calls networks.

Each holds the diffusers module as `model`. `forward(x, c_noise, **cond)` calls its forward and
returns the first result. Embeddings are cast to the dtype of `x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class DiffusersNetwork(nn.Module):
    """`needs` names the conditioning without which the network cannot run."""

    needs: Sequence[str] = ()
    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Any) -> Tensor:
        for name in self.needs:
            if cond.get(name) is None:
                raise ValueError(f"this network needs {name}, one row a sample: give it in cond")
        cond = {key: _in_dtype(value, x.dtype) for key, value in cond.items()}
        return self.model(x, timestep=c_noise, **self.arguments(cond, x), return_dict=False)[0]

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        """The conditioning in the form that this network takes."""
        return cond

    @property
    def classes(self) -> int:
        """The number of classes, 0 if there are none."""
        return 0


class UNet2D(DiffusersNetwork):
    """`UNet2DModel`; if it has classes, `class_labels` `[N]` integers. It has no null class."""

    unconditional = False

    def __init__(self, model: nn.Module):
        super().__init__(model)
        config = self.model.config
        _only_positional(config)
        if config.class_embed_type is not None:
            raise ValueError(f"class_embed_type {config.class_embed_type!r} is not supported")
        self.needs = ("class_labels",) if self.classes else ()

    @property
    def classes(self) -> int:
        return self.model.config.num_class_embeds or 0

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        labels = cond.get("class_labels")
        if labels is not None and labels.device.type == "cpu" and labels.min() < 0:
            raise ValueError("this network has no null class: class_labels must be 0 or more")
        return cond


class DiT(DiffusersNetwork):
    """`DiTTransformer2DModel`. `class_labels` `[N]` integers; none or -1 is the null class, which
    is the last row of its embedding."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        if self.model.config.norm_type != "ada_norm_zero":  # PixArt's, in its early folders
            kind = type(model).__name__
            raise ValueError(f"a {kind} that is not DiT's, of class labels, is not supported")

    @property
    def classes(self) -> int:
        return self.model.config.num_embeds_ada_norm

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        labels = cond.pop("class_labels", None)
        if labels is None:
            labels = torch.full((len(x),), -1, device=x.device)
        return {**cond, "class_labels": torch.where(labels < 0, self.classes, labels)}


class UNet2DCondition(DiffusersNetwork):
    """`UNet2DConditionModel`. `encoder_hidden_states` `[N, tokens, channels]` are the prompts'
    embeddings; Stable Diffusion XL also needs `text_embeds` and `time_ids`."""

    needs: Sequence[str] = ("encoder_hidden_states",)
    ADDED = ("text_embeds", "time_ids", "image_embeds")

    def __init__(self, model: nn.Module):
        super().__init__(model)
        _only_positional(self.model.config)
        if self.model.config.addition_embed_type == "text_time":
            self.needs = ("encoder_hidden_states", "text_embeds", "time_ids")

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        if "class_labels" in cond and self.model.class_embedding is None:
            raise ValueError("this network has no classes: leave out class_labels")
        added = {key: cond.pop(key) for key in self.ADDED if key in cond}
        return {**cond, "added_cond_kwargs": added} if added else cond


class SD3(DiffusersNetwork):
    """`SD3Transformer2DModel`. `encoder_hidden_states` `[N, tokens, channels]` and
    `pooled_projections` `[N, channels]` are the prompts' embeddings."""

    needs = ("encoder_hidden_states", "pooled_projections")


# By the class that config.json names. Early DiT folders name the third one.
ADAPTERS: dict[str, type[DiffusersNetwork]] = {
    "UNet2DModel": UNet2D,
    "DiTTransformer2DModel": DiT,
    "Transformer2DModel": DiT,
    "UNet2DConditionModel": UNet2DCondition,
    "SD3Transformer2DModel": SD3,
}


def _in_dtype(value: Any, dtype: torch.dtype) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


def _only_positional(config: Any) -> None:
    if config.time_embedding_type != "positional":
        raise ValueError(f"time_embedding_type {config.time_embedding_type!r} is not supported")
