"""`inception`: FID's Inception-v3, of 2015-12-05, as a feature network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kdiff.eval.features.inception_weights import load_inception
from kdiff.eval.features.network import FeatureNetwork, Features, equal_parts, in_full_precision
from kdiff.eval.features.registry import DEFAULT_RESIZE, FEATURES, Kind
from kdiff.eval.features.resize import MODES
from kdiff.eval.features.resize import resize as resized
from kdiff.names import UnknownName, unknown_name

# The CPU's batch is the fastest, measured on two cores; 128 is the customary one.
CPU_BATCH, GPU_BATCH = 8, 128


def load(
    device: torch.device, logits: bool, resize: str | None, weights: str | Path | None
) -> FeatureNetwork:
    """With pool3 features and sFID's spatial ones; with logits if the weights have a last layer.
    ValueError as `load_inception`, UnknownName if there is no such resize mode."""
    mode = resize or DEFAULT_RESIZE
    if mode not in MODES:
        raise UnknownName(unknown_name("resize mode", mode, MODES))
    network, fingerprint = load_inception(weights, logits)
    network.to(device)
    size = GPU_BATCH if device.type == "cuda" else CPU_BATCH

    @in_full_precision
    def extract(images: np.ndarray) -> Features:
        parts = [
            network(resized(torch.from_numpy(part).to(device), mode))
            for part in equal_parts(images, size)
        ]
        pool, spatial = (torch.cat(part)[: len(images)].cpu() for part in zip(*parts, strict=True))
        scores = None if network.output is None else network.logits(pool.to(device)).cpu().numpy()
        return Features(pool.numpy(), scores, spatial.numpy())

    return FeatureNetwork("inception", mode, fingerprint, extract)


FEATURES["inception"] = Kind("FID's Inception-v3, of 2015-12-05", load, ("resize", "weights"))
