"""A checkpoint and a reference for sweeps."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

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
def kdiff_sweep(workplace, monkeypatch):
    """A function that calls a sweep of the tiny model, with a converged solution of few steps."""
    monkeypatch.setattr("kdiff.eval.sweep.converged_solution.STEPS", STEPS)

    def call(out, *arguments, model="tiny.safetensors"):
        words = ["sweep", "--model", workplace / model, "--num", 20, "--batch", 16, "--out", out]
        return CliRunner().invoke(main, [str(word) for word in (*words, *arguments)])

    return call
