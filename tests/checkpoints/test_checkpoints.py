"""What every format goes through: recognition, overrides and names."""

import re

import pytest
import torch
from safetensors.torch import save_file

import kdiff
from kdiff.checkpoints import find_format, formats
from kdiff.networks import NETWORKS
from tiny_model import x

# --- recognition ---


def test_every_format_has_the_three_names():
    assert len(formats()) >= 12
    for name, module in formats().items():
        assert name == module.NAME and callable(module.detect) and callable(module.load)


def test_an_unknown_file_says_what_every_format_missed(tmp_path):
    path = tmp_path / "thing.bin"
    path.write_bytes(b"neither this nor that")
    with pytest.raises(ValueError, match="is of no format that kdiff reads") as caught:
        kdiff.load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    for name in formats():
        assert name in message


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_weights_that_no_format_knows_are_for_wrap(name, tmp_path):
    tensors = {"layer.weight": torch.ones(2, 2)}
    (torch.save if name == "net.pt" else save_file)(tensors, tmp_path / name)
    with pytest.raises(ValueError, match=r"for a network of your own use kdiff\.wrap$"):
        kdiff.load(tmp_path / name)


@pytest.mark.parametrize(
    ("pipeline", "name", "folder"),
    [
        (True, "model_index.json", ""),
        (True, "unet/config.json", ""),
        (True, "unet/x.safetensors", ""),
        (False, "unet/config.json", "unet"),
        (False, "unet/x.safetensors", "unet"),
    ],
)
def test_of_a_part_of_a_diffusers_folder_the_folder_is_named(pipeline, name, folder, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    save_file({"layer.weight": torch.ones(2, 2)}, tmp_path / "unet" / "x.safetensors")
    if pipeline:
        (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=f"give the folder {re.escape(str(tmp_path / folder))}$"):
        kdiff.load(tmp_path / name)


def test_each_format_refuses_the_empty_file_and_the_empty_folder(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for module in formats().values():
        for path in (tmp_path / "empty", tmp_path / "folder"):
            assert isinstance(module.detect(path), str), module.NAME


@pytest.mark.parametrize("path", ["/dev/zero", "nowhere.pt"])
def test_what_is_neither_file_nor_folder(path):
    with pytest.raises(ValueError, match="neither a file"):
        kdiff.load(path)
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        find_format(path)


# --- overrides ---


def test_overrides_correct_what_a_file_says(tiny):
    model = kdiff.load(tiny, name="mine", classes=["a"], sigma_max=10.0)
    assert (model.name, model.classes, model.sigma_max) == ("mine", ("a",), 10.0)
    assert kdiff.load(tiny).sigma_max > 100


def test_another_prediction_keeps_the_noise_levels(tiny):
    found = kdiff.load(tiny, prediction="v")
    assert found.precond.name == "v" and found.sigmas == kdiff.load(tiny).sigmas
    assert found.facts["parameterisation"] == "as told to kdiff.load"
    expected = kdiff.Denoiser(kdiff.load(tiny).network, "v", shape=(3, 8, 8))
    with torch.no_grad():
        assert torch.equal(found(x(), 1.0), expected(x(), 1.0))


def test_another_preconditioner_brings_its_range(tiny):
    model = kdiff.load(tiny, precond="edm")
    assert (model.sigma_min, model.sigma_max, model.sigmas) == (0.002, 80.0, None)


@pytest.mark.parametrize(
    "overrides, text",
    [
        ({"prediction": "edm"}, "cannot replace eps"),
        ({"colour": "red"}, "has no colour to replace"),
        ({"precond": "nothing"}, "unknown preconditioner"),
        ({"classes": ["a", "b"]}, "has 1 classes, not 2"),
        ({"dtype": "float16"}, "must be None or one such as torch.bfloat16"),
        ({"dtype": torch.int64}, "must be None or one such as torch.bfloat16"),
    ],
)
def test_overrides_that_make_no_sense(tiny, overrides, text):
    with pytest.raises(ValueError, match=text):
        kdiff.load(tiny, **overrides)


def test_facts_are_copied_not_shared(tiny):
    model = kdiff.load(tiny)
    assert model.facts == {"format": "kdiff/1", "parameterisation": "eps, from the file's metadata"}
    other = model.replace(name="other")
    other.facts["format"] = "changed"
    assert model.facts["format"] == "kdiff/1" and other.network is model.network
    with pytest.raises(TypeError, match="no network to replace"):
        model.replace(network=None)


@pytest.mark.parametrize(
    ("find", "nearest"),
    [
        (lambda: kdiff.precond("edmm"), "unknown preconditioner 'edmm'; did you mean edm"),
        (lambda: kdiff.schedule("karas", 5), "unknown schedule 'karas'; did you mean karras"),
        (lambda: NETWORKS.find("dhariwal"), "unknown network 'dhariwal'; did you mean dhariw"),
        (lambda: formats().find("lucid"), "unknown checkpoint format 'lucid'; did you mean lucidr"),
        (lambda: kdiff.alphas_cumprod("cosin"), "unknown beta schedule 'cosin'; did you mean cos"),
    ],
    ids=["preconditioner", "schedule", "network", "format", "betas"],
)
def test_unknown_names_are_told_alike(find, nearest):
    with pytest.raises(kdiff.UnknownName, match=nearest) as caught:
        find()
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
