"""Second opinions: the same figures computed by torchmetrics' and clean-fid's own code, on the same
images, with the same weights and against the same reference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from kdiff.eval.features import FeatureNetwork
from kdiff.eval.features.inception_weights import Layer, find_weights, read_weights
from kdiff.eval.references import Reference

BATCH = 32  # their default


class CannotRun(Exception):
    """Why a library cannot give a figure here."""


class Backend(Protocol):
    """It is given the images as they come, and then asked for figures."""

    note: str  # how they are known to differ from kdiff's

    def update(self, images: np.ndarray) -> None: ...

    def figure(self, metric: str, reference: Reference) -> float:
        """CannotRun if the library has none."""
        ...


class TorchMetrics:
    """torchmetrics' FrechetInceptionDistance: torch-fidelity's network, float64 sums, eigvals."""

    note = "the network unfolded; the result in float32"

    def __init__(self, resize: str, weights: Path):
        if resize != "legacy_tensorflow":
            raise CannotRun(f"torchmetrics cannot resize as {resize}")
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
        except ImportError as error:
            raise CannotRun(f"{error}: pip install 'torchmetrics[image]'") from error
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save(torch_fidelity_state(*read_weights(weights)), file.name)
            self.fid = FrechetInceptionDistance(
                antialias=False, feature_extractor_weights_path=file.name
            )

    def update(self, images: np.ndarray) -> None:
        for start in range(0, len(images), BATCH):
            with torch.inference_mode():
                self.fid.update(_nchw(images[start : start + BATCH]), real=False)

    def figure(self, metric: str, reference: Reference) -> float:
        """Its sums over the reference are made from the reference's mean and covariance: for any
        N, since the result depends on those two alone."""
        if metric != "fid":
            raise CannotRun("torchmetrics resizes with antialiasing for all but FID")
        n = 2
        gaussian = reference.gaussian
        mean, cov = torch.from_numpy(gaussian.mean), torch.from_numpy(gaussian.cov)
        self.fid.real_features_num_samples = torch.tensor(n)
        self.fid.real_features_sum = mean * n
        self.fid.real_features_cov_sum = cov * (n - 1) + n * torch.outer(mean, mean)
        return self.fid.compute().item()


class CleanFid:
    """clean-fid's resizer (one image at a time), its port of the network, its distances."""

    note = "the network unfolded; FID by sqrtm, KID over other subsets"

    def __init__(self, resize: str, weights: Path):
        if resize == "legacy_tensorflow":
            raise CannotRun("clean-fid resizes as legacy_tensorflow only in a network of its own")
        try:
            from cleanfid import fid, inception_pytorch
            from cleanfid.resize import build_resizer
        except ImportError as error:
            raise CannotRun(f"{error}: pip install clean-fid") from error
        state = torch_fidelity_state(*read_weights(weights))
        with patch.object(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: state):
            network = inception_pytorch.InceptionV3(resize_input=False, normalize_input=False)
        self.library, self.network = fid, network.eval()
        self.resizer = build_resizer(resize)
        self.half = 127.5 if resize == "legacy_pytorch" else 128.0
        self.features: list[np.ndarray] = []

    def update(self, images: np.ndarray) -> None:
        for start in range(0, len(images), BATCH):
            batch = np.stack([self.resizer(image) for image in images[start : start + BATCH]])
            x = (_nchw(batch) - self.half) / self.half
            self.features.append(self.library.get_batch_features(x, self._pooled, "cpu"))

    def _pooled(self, x: Tensor) -> Tensor:
        return self.network(x)[0].flatten(1)

    def figure(self, metric: str, reference: Reference) -> float:
        features = np.concatenate(self.features)
        if metric == "fid":
            return self._fid(features, reference)
        if metric == "kid":
            return self._kid(features, reference.rows)
        raise CannotRun(f"clean-fid has no {metric}")

    def _fid(self, features: np.ndarray, reference: Reference) -> float:
        mean, cov = features.mean(0), np.cov(features, rowvar=False)
        gaussian = reference.gaussian
        try:
            return float(self.library.frechet_distance(mean, cov, gaussian.mean, gaussian.cov))
        except TypeError as error:
            raise CannotRun(f"clean-fid's FID needs scipy < 1.18: {error}") from error
        except ValueError as error:  # a square root that is not real
            raise CannotRun(f"clean-fid's FID fails: {error}") from error

    def _kid(self, features: np.ndarray, rows: np.ndarray) -> float:
        state = np.random.get_state()  # it draws from the global generator, which is not ours
        try:
            np.random.seed(0)
            return self.library.kernel_distance(rows, features)
        finally:
            np.random.set_state(state)


BACKENDS: Mapping[str, type[TorchMetrics] | type[CleanFid]] = {
    "torchmetrics": TorchMetrics,
    "clean-fid": CleanFid,
}


def second_opinion(
    backend: str, network: FeatureNetwork, weights: str | Path | None = None
) -> Backend:
    """The library of that name, with the network's resize mode and weights. CannotRun says why
    not."""
    if network.resize is None:
        raise CannotRun(f"{backend} has no feature network {network.name}")
    return BACKENDS[backend](network.resize, find_weights(weights))


def _nchw(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def torch_fidelity_state(layers: list[Layer], output: Tensor | None) -> dict[str, Tensor]:
    """A state_dict as torch-fidelity's and pytorch-fid's networks load it. Their layers have the
    names of torchvision's Inception-v3. Without `output` the last layer is zero."""
    from torchvision.models import Inception3

    names = Inception3(aux_logits=False, init_weights=False).state_dict()
    convolutions = [n.removesuffix(".conv.weight") for n in names if n.endswith(".conv.weight")]
    state = {}
    for name, layer in zip(convolutions, layers, strict=True):
        state[f"{name}.conv.weight"] = layer.kernel
        state[f"{name}.bn.weight"] = torch.ones_like(layer.beta)
        state[f"{name}.bn.bias"] = layer.beta
        state[f"{name}.bn.running_mean"] = layer.mean
        state[f"{name}.bn.running_var"] = layer.var
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    state["fc.weight"] = torch.zeros(1008, 2048) if output is None else output
    state["fc.bias"] = torch.zeros(1008)
    return state
