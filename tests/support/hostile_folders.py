"""Hostile folders, and paths that are neither a file nor a folder."""

import json
import os

import torch
from safetensors.torch import save_file

from hostile_files import calls, register

FILES, hostile = register()


@hostile("folder")
def an_empty_folder(path, mark):
    path.mkdir()


@hostile("pipeline", kind="device")
@hostile("pipeline", kind="link")
@hostile("pipeline", kind="deep")
@hostile("pipeline", kind="large")
@hostile("pipeline", kind="list")
def a_folder_with_a_hostile_index(path, mark, kind):
    path.mkdir()
    index = path / "model_index.json"
    if kind in ("device", "link"):
        index.symlink_to({"device": "/dev/zero", "link": "/etc/passwd"}[kind])
    else:
        texts = {"deep": "[" * 200_000, "large": " " * 50_000_000, "list": "[1]"}
        index.write_text(texts[kind])


@hostile("pipeline", library="os", name="system")
@hostile("pipeline", library="diffusers", name="../../evil")
@hostile("pipeline", library="evil", name="UNet2DModel")
def a_pipeline_of_another_library(path, mark, library, name):
    (path / "unet").mkdir(parents=True)
    index = {"_class_name": "DDPMPipeline", "unet": [library, name], "scheduler": [library, name]}
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    (path / "unet" / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    (path / "unet" / "config.json").write_text(
        json.dumps({"_class_name": name, "auto_map": "evil"})
    )


UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "block_out_channels": [32, 32],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
}


@hostile("unet", changes={"layers_per_block": 10**9})
@hostile("unet", changes={"block_out_channels": [10**9, 10**9]})
@hostile("unet", changes={"down_block_types": ["os.system"]})
@hostile("unet", changes={"layers_per_block": 10**9}, weights="safetensors")
@hostile("unet", changes={"block_out_channels": [10**9, 10**9]}, weights="safetensors")
@hostile("unet", changes={"sample_size": 10**9, "layers_per_block": 100_000}, weights="safetensors")
@hostile("unet", changes={})
def a_network_folder_with_a_pickle(path, mark, changes, weights="bin"):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**UNET, **changes}))
    if weights == "safetensors":
        save_file({"w": torch.zeros(2)}, path / "diffusion_pytorch_model.safetensors")
        return
    torch.save({"w": calls(mark)["os.system"]}, path / "diffusion_pytorch_model.bin")


@hostile("links")
def a_folder_that_contains_itself(path, mark):
    path.mkdir()
    (path / "unet").symlink_to(path)
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    (path / "model_index.json").write_text(json.dumps(index))


@hostile("pipe.pt")
def a_pipe(path, mark):
    os.mkfifo(path)


@hostile("zero.safetensors")
def a_device(path, mark):
    path.symlink_to("/dev/zero")


@hostile("loop.pt")
def a_link_to_itself(path, mark):
    path.symlink_to(path)


@hostile("empty.pt")
@hostile("empty.pkl")
@hostile("empty.safetensors")
def an_empty_file(path, mark):
    path.write_bytes(b"")


@hostile("large.pkl", byte=b"\x80")
@hostile("large.pt", byte=b"(")
@hostile("large.bin", byte=b"{")
def a_large_file_of_one_byte(path, mark, byte):
    path.write_bytes(byte * 30_000_000)
