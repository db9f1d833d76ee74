"""What sweeps are tested with: a checkpoint, a reference, and models that break."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from small_sweeps import NETWORK, STEPS


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A checkpoint and a reference of a tiny problem."""
    folder = tmp_path_factory.mktemp("workplace")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = native.NETWORKS["song_unet"](**NETWORK, label_dim=3)
    for name, p in network.named_parameters():
        if "out_conv" in name or p.abs().max() < 1e-3:  # EDM's start is a network that is zero
            k = torch.arange(1, p.numel() + 1, dtype=torch.float64)
            p.data = (0.1 * k.sin()).reshape(p.shape).float()
    config = {
        "network": {"name": "song_unet", **NETWORK, "label_dim": 3},
        "precond": {"name": "edm", "sigma_data": 0.5},
        "shape": [3, 8, 8],
        "classes": ["a", "b", "c"],
    }
    native.save(folder / "tiny.safetensors", network.state_dict(), config, torch.float32)
    rows = np.random.default_rng(0).normal(0.5, 0.2, (200, 24))
    np.savez(folder / "reference.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    return folder


@pytest.fixture
def few_steps(monkeypatch):
    """Converged solutions have few steps."""
    monkeypatch.setattr("kdiff.eval.sweep.converged_solution.STEPS", STEPS)


@pytest.fixture
def kdiff_sweep(workplace, few_steps):
    """A function that calls a sweep of the tiny model."""

    def call(out, *arguments, model="tiny.safetensors"):
        words = ["sweep", "--model", workplace / model, "--num", 20, "--batch", 16, "--out", out]
        return CliRunner().invoke(main, [str(word) for word in (*words, *arguments)])

    return call


@pytest.fixture
def breaks_at_four_steps(monkeypatch):
    """A model that is not finite at one noise level of the four-step grid, until mended."""
    broken = {kdiff.schedule("karras", 4)[2]}
    call = kdiff.Denoiser.__call__

    def breaking(self, x, s, **cond):
        return call(self, x, s, **cond) * (float("nan") if s in broken else 1.0)

    monkeypatch.setattr(kdiff.Denoiser, "__call__", breaking)
    return broken.clear
