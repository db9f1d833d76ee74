"""Feature networks: uint8 images to features, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kdiff.eval.features import cifar10_classifier
from kdiff.eval.features.inception_weights import load_inception
from kdiff.eval.features.plugins import Answers, find_plugin, plugin_names
from kdiff.eval.features.resize import MODES
from kdiff.eval.features.resize import resize as resized
from kdiff.names import unknown_name
from kdiff.samplers import UnknownName

DEFAULT_FEATURES, DEFAULT_RESIZE = "inception", "legacy_tensorflow"
# Inception's CPU batch is the fastest, measured on two cores; 128 is the customary one.
CPU_BATCH, GPU_BATCH, SMALL_BATCH = 8, 128, 64


class Features(NamedTuple):
    """What metrics look at, float32: `pool` `[N, D]`; `logits` `[N, K]` and `spatial` `[N, S]` of
    networks that have them."""

    pool: np.ndarray
    logits: np.ndarray | None = None
    spatial: np.ndarray | None = None


@dataclass(frozen=True)
class FeatureNetwork:
    """`network(images)`: uint8 `[N, H, W, 3]` -> `Features`.

    `resize` is the mode of FID's Inception, None where there is no choice. `weights` is the
    SHA-256 of what determines the features: figures are comparable if all three are equal.
    """

    name: str
    resize: str | None
    weights: str
    extract: Callable[[np.ndarray], Features]

    def __call__(self, images: np.ndarray) -> Features:
        """ValueError unless uint8 `[N, H, W, 3]`."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}"
            )
        return self.extract(images)

    def label(self, metric: str) -> str:
        """`FID` and `IS` alone mean Inception; any other network's name stands with its figures."""
        if self.name == "inception":
            return metric
        return f"{metric.replace('FID', 'FD')} ({self.name})"

    def record(self) -> dict[str, Any]:
        """For results to carry."""
        return {"name": self.name, "resize": self.resize, "weights": self.weights}


def feature_network(
    name: str = DEFAULT_FEATURES,
    *,
    resize: str | None = None,
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    logits: bool = False,
) -> FeatureNetwork:
    """The network of that name.

    `inception`: FID's, with `resize` one of `kdiff.eval.features.resize.MODES` (default:
    legacy_tensorflow, as in most papers) and `weights` a file, found by itself if None; `logits`:
    insist on a file that has them. `cifar10-classifier`: a small and fast one, for images of
    32 x 32. Any other name is a plug-in: an entry point in the group `kdiff.features`, or
    `module:function`; a function from uint8 images `[N, H, W, 3]` to features `[N, D]`, or to
    (features, logits `[N, K]`), with an attribute `weights`, a hash, if it has weights.
    ValueError if there is no such network, it cannot be imported, or its weights are not there.
    """
    if not isinstance(name, str):
        raise ValueError(f"a feature network is a name, such as module:function, not {name!r:.80}")
    if name == "inception":
        return _inception(resize or DEFAULT_RESIZE, weights, torch.device(device), logits)
    if resize is not None or weights is not None:
        raise ValueError(f"--resize and --weights are for inception, not for {name}")
    if name == cifar10_classifier.NAME:
        return _cifar10_classifier(torch.device(device))
    if ":" not in name and name not in plugin_names():
        raise UnknownName(unknown_name("feature network", name, feature_networks()))
    function = find_plugin(name)
    answers = Answers(name, function)
    hashed = getattr(function, "weights", "")
    return FeatureNetwork(name, None, hashed, lambda images: Features(*answers(images)))


def feature_networks() -> dict[str, str]:
    """What there is to choose by name, and what it is; plug-ins with the function they name."""
    return {
        "inception": "FID's Inception-v3, of 2015-12-05",
        cifar10_classifier.NAME: "small and fast, for images of 32 x 32; no figures of papers",
        **plugin_names(),
    }


def _inception(
    mode: str, weights: str | Path | None, device: torch.device, logits: bool
) -> FeatureNetwork:
    if mode not in MODES:
        raise UnknownName(unknown_name("resize mode", mode, MODES))
    network, fingerprint = load_inception(weights, logits)
    network.to(device)
    size = GPU_BATCH if device.type == "cuda" else CPU_BATCH

    @_in_full_precision
    def extract(images: np.ndarray) -> Features:
        parts = [
            network(resized(torch.from_numpy(part).to(device), mode))
            for part in _equal_parts(images, size)
        ]
        pool, spatial = (torch.cat(part)[: len(images)].cpu() for part in zip(*parts, strict=True))
        scores = None if network.output is None else network.logits(pool.to(device)).cpu().numpy()
        return Features(pool.numpy(), scores, spatial.numpy())

    return FeatureNetwork("inception", mode, fingerprint, extract)


def _cifar10_classifier(device: torch.device) -> FeatureNetwork:
    network, fingerprint = cifar10_classifier.load()
    network.to(device)

    @_in_full_precision
    def extract(images: np.ndarray) -> Features:
        if images.shape[1:3] != (cifar10_classifier.SIZE, cifar10_classifier.SIZE):
            raise ValueError(
                f"{cifar10_classifier.NAME} takes images of 32 x 32, not "
                f"{images.shape[1]} x {images.shape[2]}: choose --features inception"
            )
        parts = [
            network(cifar10_classifier.to_input(torch.from_numpy(part).to(device)))
            for part in _equal_parts(images, SMALL_BATCH)
        ]
        pool, logits = (
            torch.cat(part)[: len(images)].cpu().numpy() for part in zip(*parts, strict=True)
        )
        return Features(pool, logits)

    return FeatureNetwork(cifar10_classifier.NAME, None, fingerprint, extract)


def _in_full_precision(extract: Callable[[np.ndarray], Features]) -> Callable:
    """Without gradients, and on CUDA without TF32, whose ten bits of mantissa are PyTorch's default
    for convolutions and would set these features apart from a CPU's."""

    @wraps(extract)
    def run(images: np.ndarray) -> Features:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return extract(images)

    return run


def _equal_parts(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """In parts of one size, the last one padded: a network's rounding depends on the shape of its
    batch, and features must not depend on what they are computed with."""
    for i in range(0, len(images), size):
        part = images[i : i + size]
        yield np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)])
