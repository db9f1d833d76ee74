"""A place with no references but the tests' own, and images to make some of."""

import numpy as np
import pytest

from kdiff.eval.references import stored
from toy_references import IMAGES


@pytest.fixture(autouse=True)
def packaged(tmp_path, monkeypatch):
    """The folder of packaged references, empty at first. Nobody's data folder is touched."""
    monkeypatch.setenv("KDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(stored, "PACKAGED", tmp_path / "packaged")
    (tmp_path / "packaged").mkdir()
    return tmp_path / "packaged"


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    return tmp_path / "images.npy"
