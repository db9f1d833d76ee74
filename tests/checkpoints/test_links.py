"""Links, pipes, permissions and indices that lead to nothing that can be read."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import kdiff
from checkpoint_layouts import on_linux, pipeline, shards, unet
from kdiff.models import packaged_models, sha256
from opened_files import opened_files

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the exporters


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", ["unet", "scheduler", "unet/config.json", WEIGHTS])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_link_to_nothing_is_named(name, target, tmp_path):
    part = pipeline(tmp_path / "pipeline") / name
    part.rename(tmp_path / "moved")
    part.symlink_to(part.name if target == "itself" else "nowhere")
    if name == WEIGHTS:  # a file that would be read in its place
        unet(1).save_pretrained(tmp_path / "other", safe_serialization=False)
        weights = "diffusion_pytorch_model.bin"
        (tmp_path / "other" / weights).rename(tmp_path / "pipeline" / "unet" / weights)
    with pytest.raises(ValueError, match=f"{name} is a link that leads to nothing$"):
        kdiff.load(tmp_path / "pipeline")
    with pytest.raises(ValueError, match=f"{name} (is a link that leads to nothing|cannot be)"):
        sha256(tmp_path / "pipeline")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "unet/config.json", WEIGHTS])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    file = pipeline(tmp_path / "pipeline") / name
    file.unlink()
    os.mkfifo(file)
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=r"no (scheduler_|config|diff)|not a reg"):
            use(tmp_path / "pipeline")


@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_file_that_is_a_link_to_nothing(target, tmp_path):
    (tmp_path / "itself").symlink_to(target)
    with pytest.raises(ValueError, match=r"itself is a link that leads to nothing$"):
        kdiff.load(tmp_path / "itself")


@pytest.fixture
def nobody(monkeypatch):
    """A user who, unlike root, needs permissions. kdiff itself may lie where only root can read."""
    if os.geteuid() != 0:
        yield
        return
    packaged = packaged_models()
    monkeypatch.setattr("kdiff.models.packaged_models", lambda: packaged)
    with pytest.raises(ValueError):
        kdiff.load(__file__)  # imports all modules that loading needs
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has no such permissions")
def test_a_file_that_may_not_be_read(nobody):
    folder = Path(tempfile.mkdtemp())  # pytest's folder belongs to root
    path = folder / "model.pt"
    path.write_bytes(b"")
    path.chmod(0)
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=r"cannot be read: Permission denied$"):
            use(path)
    folder.chmod(0)
    with pytest.raises(ValueError, match="neither a file"):
        kdiff.load(path)
    folder.chmod(0o700)
    shutil.rmtree(folder)


@on_linux
@pytest.mark.parametrize(
    "weight_map",
    [
        *({"w": name} for name in ("../w.safetensors", "/w.safetensors", "a/w.safetensors")),
        *({"w": name} for name in ("..", "", "w.bin", "w.gguf", "no.safetensors", 1, None)),
        *([], {}, None, "w.safetensors"),
    ],
)
def test_an_index_that_names_something_else_than_files_beside_it(weight_map, tmp_path):
    path, _ = shards(tmp_path)
    for place in (tmp_path, path, path / "a"):
        place.mkdir(exist_ok=True)
        for name in ("w.safetensors", "w.bin", "w.gguf"):
            save_file({"w": torch.zeros(1)}, place / name)
    index = path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with opened_files(tmp_path) as opened, pytest.raises(ValueError, match=r"index\.json names"):
        kdiff.load(path)
    assert opened == {path / "config.json", index}
