"""Checkpoints of tiny networks."""

import gzip

import pytest
import torch

import kdiff
import toy_guidance
from kdiff.checkpoints import native
from kdiff.networks import SongUNet
from places import GOLDEN
from tiny_models import TINY


@pytest.fixture
def tiny(tmp_path):
    """A network of random numbers, as float32."""
    model = kdiff.Denoiser(
        SongUNet(**TINY, label_dim=2), "edm", shape=(3, 8, 8), classes=["a", "b"]
    )
    path = tmp_path / "tiny.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    return path


@pytest.fixture
def no_size(tmp_path):
    """A file that does not say its image size: lucidrains', 3 channels, two levels."""
    path = tmp_path / "lucidrains.pt"
    golden = GOLDEN / "lucidrains.pt.gz"
    path.write_bytes(gzip.decompress(golden.read_bytes()))
    return path


@pytest.fixture
def toys():
    """Guidance of `toy_guidance`, and the files that it loads."""
    with toy_guidance.registered() as loads:
        yield loads


@pytest.fixture
def model(tmp_path):
    """The file of a small model with three classes."""
    return toy_guidance.with_classes(tmp_path / "tiny.safetensors")
