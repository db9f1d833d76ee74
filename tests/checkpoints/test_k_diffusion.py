"""k-diffusion's checkpoints: golden/k_diffusion_networks.json.gz has its configs, the names in its
files and what its code computes, made by tools/make_k_diffusion_networks_golden.py. The files are
written here, as its `train.py` and `convert_for_inference.py` do."""

import gzip
import json

import pytest
import torch
from safetensors.torch import save_file

import kdiff
import places
from kdiff.checkpoints import k_diffusion, native
from kdiff.networks.k_diffusion_v2 import axial_positions, neighbourhood, windows

GOLDEN = json.loads(gzip.decompress((places.GOLDEN / "k_diffusion_networks.json.gz").read_bytes()))
CONFIG = GOLDEN["networks"]["image_v1"]["config"]


def fill(shape):
    numel = torch.Size(shape).numel()
    k = torch.arange(1, numel + 1, dtype=torch.float64)
    scale = (numel // shape[0] if len(shape) > 1 else 4) ** -0.5
    return (k.sin() * scale).reshape(shape)


def tensors(variant="image_v1"):
    return {
        key: torch.tensor(value) if value else fill(shape).float()
        for key, shape, value in GOLDEN["networks"][variant]["state"]
    }


def training(path, variant="image_v1", **changes):
    """What train.py saves, shortened."""
    average = tensors(variant)
    saved = {
        "config": GOLDEN["networks"][variant]["config"],
        "model": {key: value + 1 for key, value in average.items()},
        "model_ema": average,
        "opt": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 3,
        "demo_gen": torch.Generator().get_state(),
        **changes,
    }
    torch.save({key: value for key, value in saved.items() if value is not None}, path)
    return path


def inference(path, variant="image_v1", config=None, dtype=torch.float32):
    text = json.dumps(config or GOLDEN["networks"][variant]["config"], indent=4)
    save_file({k: v.to(dtype) for k, v in tensors(variant).items()}, path, {"config": text})
    return path


@pytest.mark.parametrize("write", [training, inference])
@pytest.mark.parametrize("variant", GOLDEN["networks"])
def test_denoised_is_that_of_the_original(variant, write, tmp_path):
    suffix = ".pth" if write is training else ".safetensors"
    model = kdiff.load(write(tmp_path / f"small_00000010{suffix}", variant))
    assert model.facts["format"] == "k-diffusion"
    golden = GOLDEN["networks"][variant]
    assert model.shape == (golden["config"]["model"]["input_channels"], *model.shape[1:])
    x = torch.arange(2 * torch.Size(model.shape).numel(), dtype=torch.float64).cos()
    labels = {"class_labels": torch.tensor([1, -1])} if model.classes else {}
    with torch.no_grad():
        y = model.to(dtype=torch.float64)(x.reshape(2, *model.shape), 0.3, **labels)
    expected = torch.tensor(golden["denoised"], dtype=torch.float64)
    error = (y.flatten()[::7] - expected).abs().max() / expected.abs().max()
    assert error < 1e-6  # the weights went through float32


@pytest.mark.parametrize("name", GOLDEN["published"])
def test_published_networks(name):
    golden = GOLDEN["published"][name]
    model = golden["config"]["model"]
    with torch.device("meta"):
        network = k_diffusion.NETWORKS[model["type"]](golden["config"])()
    ours = [[key, list(value.shape)] for key, value in network.state_dict().items()]
    assert sorted(ours) == sorted(
        [key.removeprefix("inner_model."), shape] for key, shape in golden["state"]
    )


def test_settings_are_the_configs(tmp_path):
    model = kdiff.load(inference(tmp_path / "a.safetensors"))
    assert (model.sigma_min, model.sigma_max) == (0.02, 60.0)
    assert model.shape == (3, 8, 8) and model.classes == () and model.name == "a"
    assert model.precond(0.5).c_skip == pytest.approx(0.5)  # sigma_data is 0.5
    conditional = kdiff.load(inference(tmp_path / "b.safetensors", "image_transformer_v2, windows"))
    assert conditional.classes == ("0", "1", "2", "3")
    assert conditional.precond(1.0).c_skip == pytest.approx(0.5)  # 1 by default


def test_half_precision_is_loaded_as_float32(tmp_path):
    path = inference(tmp_path / "half.safetensors", dtype=torch.float16)
    assert kdiff.load(path).dtype == torch.float32
    assert kdiff.load(path, dtype=None).dtype == torch.float16


@pytest.mark.parametrize("variant", GOLDEN["networks"])
def test_converts_to_kdiffs_own_format(variant, tmp_path):
    model = kdiff.load(training(tmp_path / "model.pth", variant))
    path = tmp_path / "own.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    own = kdiff.load(path)
    ranges = [(m.shape, m.classes, m.sigma_min, m.sigma_max) for m in (own, model)]
    assert ranges[0] == ranges[1]
    x = fill((2, *model.shape)).float()
    for sigma in (0.02, 1.0, 40.0):
        assert torch.equal(own(x, sigma), model(x, sigma))


def test_config_beside_the_file(tmp_path):
    path = training(tmp_path / "old_00000010.pth", config=None)
    with pytest.raises(ValueError, match=r"no k-diffusion config in it or beside it, as old_0"):
        kdiff.load(path)
    (tmp_path / "old_00000010.json").write_text(json.dumps(CONFIG))
    assert kdiff.load(path).shape == (3, 8, 8)


def hashes(path):
    """The file's hashes while the content of its NAME.json changes."""
    for sigma_data in (0.5, 1.0):
        config = {**CONFIG, "model": {**CONFIG["model"], "sigma_data": sigma_data}}
        path.with_suffix(".json").write_text(json.dumps(config))
        yield kdiff.models.sha256(path)


def test_the_hash_covers_the_config_beside_the_file_if_that_is_read(tmp_path):
    assert len(set(hashes(training(tmp_path / "without.pth", config=None)))) == 2
    assert len(set(hashes(training(tmp_path / "with.pth")))) == 1
    assert len(set(hashes(inference(tmp_path / "with.safetensors")))) == 1


def test_conditioning(tmp_path):
    """Conditioning beside the noise level is given by name. The nine augmentation numbers are 0."""
    config = {"model": {**CONFIG["model"], "mapping_cond_dim": 2, "unet_cond_dim": 1}}
    network = k_diffusion.NETWORKS["image_v1"](config)()
    x, c_noise = torch.ones(2, 3, 8, 8), torch.zeros(2)
    extra = {"unet_cond": torch.zeros(2, 1, 8, 8)}
    with torch.no_grad():
        network.mapping_cond.weight[:, :9] = 1e9
        plain = network(x, c_noise, **extra)
        assert torch.equal(network(x, c_noise, mapping_cond=torch.zeros(2, 2), **extra), plain)
        assert not torch.equal(network(x, c_noise, mapping_cond=torch.ones(2, 2), **extra), plain)


def test_local_attention():
    near = neighbourhood(5, 7, 3, "cpu").reshape(5, 7, 5, 7)
    assert (near.sum((2, 3)) == 9).all()
    assert near[0, 0, :3, :3].all() and near[2, 3, 1:4, 2:5].all() and near[4, 6, 2:, 4:].all()
    cut = windows(8, 8, 4, 2, "cpu").reshape(8, 8, 8, 8)
    assert cut[0, 0].sum() == 4 and cut[0, 2].sum() == 8 and cut[2, 2].sum() == 16
    assert cut[7, 7, 6:, 6:].all() and not cut[7, 7, 0, 0]
    with pytest.raises(ValueError, match="needs as many tokens, not 2"):
        neighbourhood(2, 7, 3, "cpu")
    with pytest.raises(ValueError, match="multiple of it, not 6"):
        windows(6, 8, 4, 0, "cpu")
    assert axial_positions(1, 2, "cpu").tolist() == [[0, -0.5], [0, 0.5]]


def config_with(**changes):
    return {"config": {"model": {**CONFIG["model"], **changes}}}


def with_dataset(dataset):
    config = GOLDEN["networks"]["image_transformer_v2"]["config"]
    return {"config": {**config, "dataset": dataset}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (config_with(type="image_transformer_v1"), "'image_transformer_v1' is not supported"),
        (config_with(cross_cond_dim=8), "cross-attention"),
        (config_with(channels=[32, 32]), "tensors do not fit"),
        (config_with(depths=[1]), "small.pth"),
        (config_with(depths=[1, 10**12]), "more tensors than the file"),
        (config_with(input_size=None), "not complete"),
        ({"config": {"model": {"type": "image_v1"}}}, "not complete: 'input_channels'"),
        ({"config": {"model": 3}}, "no k-diffusion config"),
        (config_with(sigma_max=None), "no number as sigma_max, but None"),
        (config_with(sigma_data="1"), "no number as sigma_data, but '1'"),
        (with_dataset(None), "no settings as dataset, but None"),
        (with_dataset({"num_classes": None}), "no number as num_classes, but None"),
        ({"model_ema": None, "model": {}}, "no proj_in.weight"),
        ({"model_ema": None, "config": None}, "no k-diffusion config"),
    ],
)
def test_refused_in_one_line(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        kdiff.load(training(tmp_path / "small.pth", **changes))
    assert "\n" not in str(caught.value)


def test_damaged_safetensors(tmp_path):
    path = inference(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        kdiff.load(path)
    save_file(tensors(), path, {"config": "{"})
    with pytest.raises(ValueError, match="not JSON"):
        kdiff.load(path)
