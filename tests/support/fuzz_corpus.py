"""Sound files of every kind that kdiff reads, small, each with the reader that it is for."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import small_checkpoints
from kdiff.eval.metrics.frechet import Gaussian
from kdiff.eval.references import Reference, save_reference
from kdiff.networks.song_unet import SongUNet

SWEEP = """\
model: mnist
sampler: [euler, dpmpp_2m]
steps: 2,4
schedule: [karras]
option:
  S_churn: [0, 1]
num: 4
metrics: none
rho: 7.0
final: zero
"""
SIDECAR = {"prediction": "eps", "shape": [3, 8, 8], "alphas_cumprod": "cosine", "classes": 4}


@dataclass(frozen=True)
class Sound:
    """A file or folder that `write(path)` makes and returns, how the worker reads it, and whether
    that is `read` or, though it is sound, `refused`."""

    surface: str
    write: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)
    outcome: str = "read"


def _pixels(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)


def image_folder(suffix: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.mkdir()
        for i, pixels in enumerate(_pixels(3)):
            Image.fromarray(pixels).save(path / f"{i}{suffix}")
        return path

    return write


def image_zip(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for i, pixels in enumerate(_pixels(3)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png")
            archive.writestr(f"{i}.png", buffer.getvalue())
    return path.with_suffix(".zip")


def npy(path: Path) -> Path:
    np.save(path.with_suffix(".npy"), _pixels(4))
    return path.with_suffix(".npy")


def npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), arr_0=_pixels(4), other=np.zeros(3))
    return path.with_suffix(".npz")


def statistics(path: Path) -> Path:
    moments = {"mu": np.zeros(16), "sigma": np.eye(16)}
    np.savez_compressed(path.with_suffix(".npz"), **moments, mu_s=np.zeros(4), sigma_s=np.eye(4))
    return path.with_suffix(".npz")


def own_reference(path: Path) -> Path:
    gaussian = Gaussian(np.zeros(16), np.eye(16), 100)
    save_reference(Reference(name="r", n=100, gaussian=gaussian), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def sweep_file(path: Path) -> Path:
    path.with_suffix(".yaml").write_text(SWEEP)
    return path.with_suffix(".yaml")


def sweep_folder(path: Path) -> Path:
    path.mkdir()
    cell = {
        "model": {"name": "m", "sha256": "0" * 64},
        **{"sampler": "euler", "options": {"S_churn": 0.0}, "schedule": "karras", "final": "zero"},
        **{"steps": 4, "nfe": 4, "sigmas": [80.0, 1.0, 0.0], "seeds": {"first": 0, "n": 8}},
        **{"features": {"name": "inception"}, "reference": {"name": "cifar10", "n": 50000}},
    }
    metrics = {"FID": {"value": 12.5, "n": 8, "error": 0.5}}
    lines = [
        {"key": f"{nfe:016x}", "status": "ok", "cell": {**cell, "nfe": nfe}, "metrics": metrics}
        for nfe in (4, 8)
    ]
    (path / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "sweep.json").write_text(json.dumps({"command": "kdiff sweep", "settings": {}}))
    return path


def with_settings(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """A program, with the file that says what it predicts."""

    def both(path: Path) -> Path:
        path.mkdir()
        program = write(path)
        program.with_name(program.name + ".json").write_text(json.dumps(SIDECAR))
        return program

    return both


def plain_weights(path: Path, width: int) -> Path:
    network = SongUNet(8, model_channels=width, num_blocks=1)
    save_file(network.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def wrapped_weights(path: Path, width: int) -> Path:
    network = SongUNet(8, model_channels=width, num_blocks=1).state_dict()
    tensors = {f"_orig_mod.module.{key}": value for key, value in network.items()}
    torch.save({"epoch": 3, "model": tensors, "ema": {"state_dict": tensors}}, path)
    return path


def run_folder(path: Path) -> Path:
    """As `kdiff sample` leaves it."""
    image_folder(".png")(path)
    record = {"model": "m", "sampler": "euler", "seeds": [0, 1, 2], "trajectory": None}
    (path / "run.json").write_text(json.dumps(record))
    for i in range(3):
        (path / f"{i}.png").rename(path / f"{i:06d}.png")
    shutil.copy(path / "000000.png", path / "grid.png")
    return path


class Net(nn.Module):
    def forward(self, x, t):
        return x * t.cos()[:, None, None, None]


def torchscript(folder: Path) -> Path:
    torch.jit.script(Net()).save(folder / "net.pt")
    return folder / "net.pt"


def onnx(folder: Path) -> Path:
    inputs = torch.zeros(2, 3, 8, 8), torch.zeros(2)
    torch.onnx.export(Net(), inputs, folder / "net.onnx", verbose=False)
    return folder / "net.onnx"


def _small(
    write: Callable[[Path, int], Path], suffix: str = ".pt", width: int = 8
) -> Callable[[Path], Path]:
    return lambda path: write(path.with_suffix(suffix), width)


def golden(name: str) -> Callable[[Path], Path]:
    """A file that its format's own code wrote."""
    return lambda path: Path(shutil.copy(small_checkpoints.GOLDEN / name, path.with_suffix(".pkl")))


SHAPE = {"shape": [3, 8, 8]}
# Without metrics, or a damaged file could ask for Inception, which takes its memory.
SWEEP_LINE = {"line": ["sweep", "--file", "PATH", "--metrics", "none", "--dry-run"]}
REPORT = {"line": ["report", "PATH", "--format", "csv,md,latex,html"]}
CORPUS = {
    "kdiff": Sound("checkpoint", _small(small_checkpoints.native_file)),
    "edm": Sound("checkpoint", golden("edm_vp.pkl")),
    "edm2": Sound("checkpoint", golden("edm2_latents.pkl")),
    "openai": Sound(
        "checkpoint", _small(small_checkpoints.openai_file, width=32), small_checkpoints.FLAGS
    ),
    "lucidrains": Sound(
        "checkpoint", _small(small_checkpoints.lucidrains_file), {**SHAPE, "prediction": "eps"}
    ),
    "score_sde": Sound("checkpoint", _small(small_checkpoints.score_sde_file), SHAPE),
    "k_diffusion_pth": Sound("checkpoint", _small(small_checkpoints.k_diffusion_training)),
    "k_diffusion": Sound("checkpoint", _small(small_checkpoints.k_diffusion_inference)),
    "diffusers": Sound("checkpoint", _small(small_checkpoints.diffusers_folder, "")),
    "weights": Sound("checkpoint", _small(plain_weights), {**SHAPE, "precond": "edm"}),
    "wrapped": Sound("checkpoint", _small(wrapped_weights), {**SHAPE, "precond": "edm"}),
    "torchscript": Sound("checkpoint", with_settings(torchscript), outcome="refused"),
    "onnx": Sound("checkpoint", with_settings(onnx)),
    **{
        f"images{suffix}": Sound("images", image_folder(suffix))
        for suffix in (".png", ".jpg", ".bmp", ".webp", ".ppm", ".tif", ".gif")
    },
    "run": Sound("images", run_folder),
    "zip": Sound("images", image_zip),
    "npy": Sound("images", npy),
    "npz": Sound("images", npz),
    "statistics": Sound("reference", statistics),
    "reference": Sound("reference", own_reference),
    "sweep_file": Sound("command", sweep_file, SWEEP_LINE),
    "sweep_folder": Sound("command", sweep_folder, REPORT),
}
