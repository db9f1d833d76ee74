"""The packaged model, and kdiff's own checkpoint format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import kdiff
from kdiff import checkpoints
from kdiff.checkpoints import native
from kdiff.eval.features import cifar10_classifier
from kdiff.hashes import sha256_of_file
from kdiff.models import find_model, packaged_models

CONFIG = {
    "network": {"name": "song_unet", "img_resolution": 8, "model_channels": 16, "num_blocks": 1},
    "precond": {"name": "edm", "sigma_data": 0.5},
    "shape": [3, 8, 8],
    "classes": [],
}


def test_round_trip_of_a_checkpoint(tmp_path):
    config = {**CONFIG, "network": {**CONFIG["network"], "attn_resolutions": [4]}}
    settings = {k: v for k, v in config["network"].items() if k != "name"}
    network = native.NETWORKS["song_unet"](**settings)
    native.save(tmp_path / "m.safetensors", network.state_dict(), config, torch.float32)
    loaded = kdiff.load(tmp_path / "m.safetensors")
    original = kdiff.Denoiser(network.eval(), "edm", shape=(3, 8, 8))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x, 1.5), original(x, 1.5))
    assert (loaded.name, loaded.shape, loaded.sigma_max) == ("m", (3, 8, 8), 80.0)


def test_other_safetensors_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="it holds 1 tensors, such as a"):
        kdiff.load(tmp_path / "other.safetensors")


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        native.save(path, {"a": torch.zeros(1)}, {"not json": object()})
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_packaged_name_is_never_a_path(tmp_path, monkeypatch):
    """So what a record calls cifar10 is one model."""
    (tmp_path / "cifar10").write_bytes(packaged_models()["mnist"].read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"^cifar10 is the model that comes .* say \./cifar10$"):
        assert find_model("cifar10") == packaged_models()["cifar10"]
    for path in ("./cifar10", Path("cifar10"), Path("./cifar10"), str(tmp_path / "cifar10")):
        assert find_model(path) == Path(path)
        assert kdiff.load(path).shape == (1, 28, 28)
    with pytest.raises(ValueError, match="no model 'mnist'"):
        find_model(Path("mnist"))


def test_on_the_command_line_a_hidden_path_is_named_in_one_line(tmp_path):
    (tmp_path / "cifar10").mkdir()
    command = [sys.executable, "-m", "kdiff", "inspect", "cifar10", "--no-health", "--json"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(found.stdout)["shape"] == [3, 32, 32]
    assert found.stderr == (
        "cifar10 is the model that comes with kdiff: for the file or folder say ./cifar10\n"
    )


def test_a_feature_networks_hash_asks_no_checkpoint_format(monkeypatch):
    monkeypatch.setattr(checkpoints, "formats", None)
    assert cifar10_classifier.load()[1] == sha256_of_file(cifar10_classifier.FILE)


def ramps():
    ramp = torch.linspace(-0.8, 0.8, 32)
    return torch.stack([ramp.expand(3, 32, 32), ramp[:, None].expand(3, 32, 32)])


def one_and_nought():
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    one = (x.abs() < 1.5) & (y.abs() < 9)
    nought = ((x / 6).square() + (y / 8).square() - 1).abs() < 0.4
    return torch.stack([one, nought])[:, None].float() * 2 - 1


@pytest.mark.parametrize("name, images", [("cifar10", ramps()), ("mnist", one_and_nought())])
def test_a_packaged_model_denoises(name, images):
    """At sigma = 0.2 its output must be nearer to the clean image than the noisy one is: on
    pictures that it has not seen, by a factor that an untrained network does not reach."""
    model = kdiff.load(name)
    x = images + 0.2 * kdiff.Noise([0, 1], model.shape).initial()
    with torch.no_grad():
        denoised = model(x, 0.2)
    assert (denoised - images).square().mean() < 0.2**2 / 4


@pytest.mark.parametrize(
    "name, most, shape", [("cifar10", 20e6, (3, 32, 32)), ("mnist", 2e6, (1, 28, 28))]
)
def test_a_packaged_model_is_small_and_has_a_card(name, most, shape):
    path = packaged_models()[name]
    assert path == find_model(name) and path.stat().st_size <= most
    assert path.with_suffix(".md").read_text().startswith(f"# {name}")
    model = kdiff.load(name)
    assert len(model.classes) == 10 and model.shape == shape


def test_deterministic_sampling_of_the_packaged_model_is_the_same_in_any_batch():
    model = kdiff.load()

    def sample(batch, deterministic):
        labels = [i % 10 for i in range(8)]
        return kdiff.sample(
            model,
            "dpmpp_2m_sde",
            steps=2,
            seeds=range(8),
            class_labels=labels,
            batch=batch,
            deterministic=deterministic,
        )

    exact, plain = sample(8, True), sample(8, False)
    for batch in (1, 3, 4):
        assert torch.equal(sample(batch, True), exact)
        torch.testing.assert_close(sample(batch, False), plain, rtol=0, atol=1e-5)
