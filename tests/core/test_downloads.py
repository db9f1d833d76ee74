"""Files that a clone or a download left in place of the intended ones."""

import json

import numpy as np
import pytest
from PIL import Image

import kdiff
from kdiff.downloads import check_file, unfinished
from kdiff.eval.features.inception_weights import read_weights
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.references import find_reference

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = "\n<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>"
XML = '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
SAYS = {POINTER: "a Git LFS pointer, .*run `git lfs pull`", PAGE: "a web page", XML: "a server's"}


@pytest.mark.parametrize("content", SAYS)
@pytest.mark.parametrize(
    "name", ["m.safetensors", "m.pt", "m.pth", "m.ckpt", "m.pkl", "m.onnx", "m.pt2", "m"]
)
def test_in_place_of_a_checkpoint(content, name, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=SAYS[content]) as caught:
        kdiff.load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_in_a_diffusers_folder(part, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        **{"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4},
        **{"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)},
    )
    unet.save_pretrained(tmp_path)
    (tmp_path / part).write_text(POINTER)
    with pytest.raises(ValueError, match=f"{part} is a Git LFS pointer"):
        kdiff.load(tmp_path)


def test_beside_a_model(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    w = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
    w.external_data.add(key="location", value="w.bin")
    inputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in "xty"]
    node = onnx.helper.make_node("Sum", ["x", "w", "t"], ["y"])
    graph = onnx.helper.make_graph([node], "g", inputs[:2], inputs[2:], [w])
    (tmp_path / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "w.bin").write_text(POINTER)
    with pytest.raises(ValueError, match=r"w\.bin is a Git LFS pointer"):
        kdiff.load(tmp_path / "m.onnx", prediction="eps", shape=(1,))
    (tmp_path / "m.onnx.json").write_text(POINTER)
    with pytest.raises(ValueError, match=r"m\.onnx\.json is a Git LFS pointer"):
        kdiff.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["ref.npz", "ref.safetensors", "images.npy", "images.zip"])
def test_in_place_of_a_reference_or_images(name, tmp_path):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        find_reference(str(tmp_path / name), "inception", "legacy_tensorflow")
    if name.startswith("images"):
        with pytest.raises(ValueError, match="is a Git LFS pointer"):
            open_pictures(tmp_path / name)


@pytest.mark.parametrize("name", ["ref.npz", "ref.safetensors", "images.npy", "images.zip"])
def test_an_empty_reference(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="is an empty file"):
        find_reference(str(tmp_path / name), "inception", "legacy_tensorflow")


def test_in_place_of_an_image(tmp_path):
    for i in range(3):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_text(POINTER)
    with pytest.raises(ValueError, match=r"1\.png .*a Git LFS pointer"):
        open_pictures(tmp_path)


def test_in_place_of_feature_weights(tmp_path):
    (tmp_path / "inception.pth").write_text(POINTER)
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        read_weights(tmp_path / "inception.pth")


def test_what_is_not_finished_or_empty(tmp_path):
    for name in ("model.safetensors.part", "model.pt.crdownload", "model.incomplete"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
        assert unfinished(tmp_path / name)
        with pytest.raises(ValueError, match="an unfinished download, by its name"):
            kdiff.load(tmp_path / name)
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="is an empty file"):
        kdiff.load(tmp_path / "empty.pt")


def test_what_is_as_it_should_be_passes(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"a": 1}))
    check_file(tmp_path / "settings.json")
    check_file(tmp_path)
    check_file(tmp_path / "nowhere")
