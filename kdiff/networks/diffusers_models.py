"""The networks of diffusers, called as kdiff calls networks.

Each holds the diffusers module as `model`. `forward(x, c_noise, **cond)` calls its forward and
returns the first result. Embeddings, `[N, ..]` or a list of N, are moved to the device of `x` and
cast to its dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class DiffusersNetwork(nn.Module):
    """`needs` names the conditioning without which the network cannot run, and `texts` the layout
    of text encoders (`kdiff.text.LAYOUTS`) that it is made from.

    Of latents: `patch` is how many of them make a token, or a unit, along each side, and `most` the
    longest side. `resizable`: whether they may have another shape than the configuration says.
    `distilled_guidance`: the scale that a network with distilled guidance is told by default.
    """

    needs: Sequence[str] = ()
    texts: str | None = None
    patch = 1
    most = 2**16
    resizable = False
    distilled_guidance: float | None = None
    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Any) -> Tensor:
        cond = {k: v for k, v in cond.items() if not k.startswith(("null_", "negative_"))}
        for name in self.needs:
            if cond.get(name) is None:
                raise ValueError(f"this network needs {name}, one row a sample: give it in cond")
        cond = {key: _for_network(value, x) for key, value in cond.items()}
        return self.answer(x, c_noise, cond)

    def answer(self, x: Tensor, c_noise: Tensor, cond: dict[str, Any]) -> Tensor:
        return self.model(x, timestep=c_noise, **self.arguments(cond, x), return_dict=False)[0]

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        """The conditioning in the form that this network takes."""
        return cond

    def conditions(self, width: int, height: int, guidance: float | None) -> dict[str, Tensor]:
        """What the network is told beside prompts, of one image of so many pixels."""
        return {}

    def tokens(self, shape: Sequence[int]) -> int | None:
        """How many tokens latents of this shape are, by which flows are shifted; None if it is not
        a transformer of latents of any shape."""
        if not self.resizable or isinstance(self, UNet2DCondition):
            return None
        _, height, width = shape
        return (height // self.patch) * (width // self.patch)

    @property
    def width(self) -> int:
        """The number of channels of the embeddings that it attends to."""
        return self.model.config.joint_attention_dim

    @property
    def channels(self) -> int:
        """Of the samples."""
        return self.model.config.in_channels

    @property
    def sample_size(self) -> int | Sequence[int] | None:
        """The side, or sides, of samples; None if the configuration does not say."""
        return self.model.config.sample_size

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
    embeddings; Stable Diffusion XL also needs `text_embeds` `[N, channels]` and `time_ids` `[N, 6]`
    (height and width of the original, where it was cropped, height and width of the result)."""

    needs: Sequence[str] = ("encoder_hidden_states",)
    resizable = True
    ADDED = ("text_embeds", "time_ids", "image_embeds")

    def __init__(self, model: nn.Module):
        super().__init__(model)
        config = self.model.config
        _only_positional(config)
        if config.addition_embed_type == "text_time":
            self.needs = ("encoder_hidden_states", "text_embeds", "time_ids")
        if config.encoder_hid_dim_type is None and config.class_embed_type is None:
            layouts = {None: "Stable Diffusion", "text_time": "Stable Diffusion XL"}
            self.texts = layouts.get(config.addition_embed_type)

    @property
    def width(self) -> int:
        return self.model.config.cross_attention_dim

    def conditions(self, width: int, height: int, guidance: float | None) -> dict[str, Tensor]:
        if "time_ids" not in self.needs:
            return {}
        return {"time_ids": torch.tensor([height, width, 0, 0, height, width]).float()}

    def arguments(self, cond: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        if "class_labels" in cond and self.model.class_embedding is None:
            raise ValueError("this network has no classes: leave out class_labels")
        added = {key: cond.pop(key) for key in self.ADDED if key in cond}
        return {**cond, "added_cond_kwargs": added} if added else cond


class SD3(DiffusersNetwork):
    """`SD3Transformer2DModel`. `encoder_hidden_states` `[N, tokens, channels]` and
    `pooled_projections` `[N, channels]` are the prompts' embeddings."""

    needs = ("encoder_hidden_states", "pooled_projections")
    texts = "Stable Diffusion 3"
    resizable = True

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.patch = self.model.config.patch_size
        self.most = self.model.config.pos_embed_max_size * self.patch


class Flux(DiffusersNetwork):
    """`FluxTransformer2DModel`, on latents `[N, channels, height, width]`, of which 2 x 2 make a
    token. The embeddings are as for `SD3`; `guidance` `[N]` is the scale of its distilled guidance,
    if it has that."""

    needs: Sequence[str] = ("encoder_hidden_states", "pooled_projections")
    texts = "Flux"
    patch = 2
    resizable = True
    sample_size = 128  # its configuration does not say

    def __init__(self, model: nn.Module):
        super().__init__(model)
        if self.model.config.guidance_embeds:
            self.needs = (*self.needs, "guidance")
            self.distilled_guidance = 3.5

    @property
    def channels(self) -> int:
        return self.model.config.in_channels // self.patch**2

    def conditions(self, width: int, height: int, guidance: float | None) -> dict[str, Tensor]:
        return {} if guidance is None else {"guidance": torch.tensor(guidance)}

    def answer(self, x: Tensor, c_noise: Tensor, cond: dict[str, Any]) -> Tensor:
        n, channels, *sides = x.shape
        height, width = (side // self.patch for side in sides)
        in_patches = (n, channels, height, self.patch, width, self.patch)
        packed = x.reshape(in_patches).permute(0, 2, 4, 1, 3, 5).reshape(n, height * width, -1)
        axes = (torch.arange(float(size), device=x.device) for size in (1, height, width))
        answer = self.model(
            packed,
            timestep=c_noise / 1000,  # its forward multiplies by 1000
            img_ids=torch.cartesian_prod(*axes),
            txt_ids=torch.zeros(cond["encoder_hidden_states"].shape[1], 3, device=x.device),
            **cond,
            return_dict=False,
        )[0]
        unpacked = answer.reshape(n, height, width, channels, self.patch, self.patch)
        return unpacked.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


# By the class that config.json names. Early DiT folders name the third one.
ADAPTERS: dict[str, type[DiffusersNetwork]] = {
    "UNet2DModel": UNet2D,
    "DiTTransformer2DModel": DiT,
    "Transformer2DModel": DiT,
    "UNet2DConditionModel": UNet2DCondition,
    "SD3Transformer2DModel": SD3,
    "FluxTransformer2DModel": Flux,
}


def _for_network(value: Any, x: Tensor) -> Any:
    if isinstance(value, list) and all(isinstance(one, Tensor) for one in value):
        value = torch.stack(value)
    if not isinstance(value, Tensor):
        return value
    return value.to(x.device, x.dtype if value.is_floating_point() else None)


def _only_positional(config: Any) -> None:
    if config.time_embedding_type != "positional":
        raise ValueError(f"time_embedding_type {config.time_embedding_type!r} is not supported")
