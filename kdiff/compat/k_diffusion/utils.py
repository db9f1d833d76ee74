"""What `k_diffusion.utils` has for sampling, and for looking at and averaging models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from kdiff.compat.k_diffusion._densities import (
    enable_stratified,
    enable_stratified_accelerate,
    rand_cosine_interpolated,
    rand_log_logistic,
    rand_log_normal,
    rand_log_uniform,
    rand_split_log_normal,
    rand_v_diffusion,
    stratified_settings,
    stratified_uniform,
    stratified_with_settings,
)
from kdiff.compat.k_diffusion._missing import says_what_is_missing

__all__ = [
    "CSVLogger",
    "EMAWarmup",
    "append_dims",
    "ema_update",
    "ema_update_dict",
    "enable_stratified",
    "enable_stratified_accelerate",
    "eval_mode",
    "from_pil_image",
    "get_safetensors_metadata",
    "hf_datasets_augs_helper",
    "n_params",
    "rand_cosine_interpolated",
    "rand_log_logistic",
    "rand_log_normal",
    "rand_log_uniform",
    "rand_split_log_normal",
    "rand_v_diffusion",
    "stratified_settings",
    "stratified_uniform",
    "stratified_with_settings",
    "tf32_mode",
    "to_pil_image",
    "train_mode",
]

__getattr__ = says_what_is_missing("utils")

_PICTURE_MODES = ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "P")


def from_pil_image(x: Image.Image) -> Tensor:
    """`[C, H, W]` from -1 to 1, in float32. ValueError unless its pixels are bytes or bits."""
    if x.mode not in _PICTURE_MODES:
        raise ValueError(f"a picture of mode {x.mode!r} has no range; convert it to L or RGB first")
    pixels = np.array(x)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    full = 1 if x.mode == "1" else 255
    return torch.from_numpy(pixels.astype(np.float32)).movedim(2, 0) / full * 2 - 1


def to_pil_image(x: Tensor) -> Image.Image:
    """`[C, H, W]`, `[1, C, H, W]` or `[H, W]` from -1 to 1, clamped; as in k-diffusion, rounded
    down to bytes. ValueError for other shapes."""
    batch = x[0] if x.ndim == 4 and len(x) == 1 else x
    picture = batch[None] if batch.ndim == 2 else batch
    if picture.ndim != 3 or len(picture) not in (1, 2, 3, 4):
        raise ValueError(f"one picture must be [C, H, W] with 1 to 4 channels, not {list(x.shape)}")
    pixels = ((picture.detach().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).movedim(0, 2)
    return Image.fromarray(pixels.squeeze(2).contiguous().cpu().numpy())


def hf_datasets_augs_helper(
    examples: Mapping[str, Any], transform: Any, image_key: str, mode: str = "RGB"
) -> dict[str, list[Any]]:
    """`transform` of each picture of a batch of Hugging Face's datasets."""
    return {image_key: [transform(image.convert(mode)) for image in examples[image_key]]}


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """`x` with axes of length 1 at its end up to `target_dims` axes; ValueError if it has more."""
    if x.ndim > target_dims:
        raise ValueError(f"a tensor of {x.ndim} dims cannot be made one of {target_dims}")
    return x.reshape(*x.shape, *[1] * (target_dims - x.ndim))


def n_params(module: nn.Module) -> int:
    """The number of its parameters."""
    return sum(p.numel() for p in module.parameters())


@contextmanager
def train_mode(model: nn.Module, mode: bool = True) -> Iterator[nn.Module]:
    """A context or decorator in which `model` is in training mode; afterwards each of its modules
    is in the mode that it was in before."""
    before = {module: module.training for module in model.modules()}
    try:
        yield model.train(mode)
    finally:
        for module, training in before.items():
            module.training = training


def eval_mode(model: nn.Module) -> AbstractContextManager[nn.Module]:
    """The same with evaluation mode."""
    return train_mode(model, False)


@torch.no_grad()
def ema_update(model: nn.Module, averaged_model: nn.Module, decay: float) -> None:
    """Moves the averaged model's parameters by 1 - decay towards the model's, and takes its
    buffers. ValueError unless both have the same names."""
    parameters, averaged = (dict(m.named_parameters()) for m in (model, averaged_model))
    buffers, kept = (dict(m.named_buffers()) for m in (model, averaged_model))
    if parameters.keys() != averaged.keys() or buffers.keys() != kept.keys():
        raise ValueError("the model and its average have parameters or buffers of different names")
    for name in parameters:
        averaged[name].lerp_(parameters[name], 1 - decay)
    for name in buffers:
        kept[name].copy_(buffers[name])


def ema_update_dict(
    values: dict[str, Any], updates: Mapping[str, Any], decay: float
) -> dict[str, Any]:
    """Moves each of `values` by 1 - decay towards its update; new ones are taken as they are."""
    for key, update in updates.items():
        values[key] = decay * values[key] + (1 - decay) * update if key in values else update
    return values


class EMAWarmup:
    """A decay that rises with the number of steps: 1 - (1 + epoch / inv_gamma)^-power, at least
    `min_value` and at most `max_value`, from epoch `start_at` on."""

    def __init__(
        self, inv_gamma=1.0, power=1.0, min_value=0.0, max_value=1.0, start_at=0, last_epoch=0
    ):
        self.inv_gamma, self.power = inv_gamma, power
        self.min_value, self.max_value = min_value, max_value
        self.start_at, self.last_epoch = start_at, last_epoch

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        vars(self).update(state_dict)

    def get_value(self) -> float:
        """The decay now."""
        epoch = max(0, self.last_epoch - self.start_at)
        value = 1 - (1 + epoch / self.inv_gamma) ** -self.power
        return min(self.max_value, max(self.min_value, value))

    def step(self) -> None:
        self.last_epoch += 1


class CSVLogger:
    """Appends rows to a file, which starts with the names of its columns."""

    def __init__(self, filename, columns):
        self.filename, self.columns = Path(filename), columns
        is_new = not self.filename.exists()
        self.file = self.filename.open("a", encoding="utf-8")
        if is_new:
            self.write(*columns)

    def write(self, *args: Any) -> None:
        print(*args, sep=",", file=self.file, flush=True)


@contextmanager
def tf32_mode(cudnn: bool | None = None, matmul: bool | None = None) -> Iterator[None]:
    """A context or decorator in which TF32 is allowed or not; None leaves it as it is."""
    switches: list[tuple[Any, bool | None]]
    switches = [(torch.backends.cudnn, cudnn), (torch.backends.cuda.matmul, matmul)]
    before = [(backend, backend.allow_tf32) for backend, _ in switches]
    try:
        for backend, allowed in switches:
            if allowed is not None:
                backend.allow_tf32 = allowed
        yield
    finally:
        for backend, allowed in before:
            backend.allow_tf32 = allowed


def get_safetensors_metadata(path: str | Path) -> dict[str, str] | None:
    """The text that a safetensors file has beside its tensors."""
    with safe_open(path, "pt") as file:
        return file.metadata()
