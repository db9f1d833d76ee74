"""A tiny network and an input for it."""

import torch

import kdiff
from kdiff.checkpoints import native
from kdiff.networks import SongUNet

TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}


def write_tiny(path):
    """A kdiff/1 file of a tiny network that predicts eps."""
    model = kdiff.Denoiser(SongUNet(**TINY, label_dim=1), "eps", shape=(3, 8, 8), classes=["0"])
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    return path


def x(n=2):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
