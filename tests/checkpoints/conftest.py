"""What several tests of checkpoints share."""

import pytest

from hostile_networks import trapped
from tiny_model import write_tiny


@pytest.fixture
def path(tmp_path):
    """Where a test saves its network."""
    return tmp_path / "net.pt"


@pytest.fixture
def tiny(tmp_path):
    """A kdiff/1 file of a tiny network that predicts eps."""
    return write_tiny(tmp_path / "tiny.safetensors")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A second check of every test: the files it loads must not create hostile_networks.EVIL."""
    with trapped(tmp_path, monkeypatch):
        yield
