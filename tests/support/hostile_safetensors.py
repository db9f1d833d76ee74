"""Hostile safetensors."""

import json
import struct

from safetensors.torch import save_file

import kdiff
from hostile_files import HUGE, register
from kdiff.checkpoints import native
from kdiff.networks import SongUNet
from tiny_model import TINY

FILES, hostile = register()


def config(**network):
    described = native.describe(kdiff.Denoiser(SongUNet(**TINY), "edm", shape=(3, 8, 8)))
    return {**described, "network": {**described["network"], **network}}


def kdiff_file(path, described):
    tensors = SongUNet(**TINY).state_dict()
    text = described if isinstance(described, str) else json.dumps(described)
    save_file(tensors, path, {"format": "kdiff/1", "config": text})


def safetensors(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


META = {"__metadata__": {"format": "kdiff/1", "config": json.dumps({"network": {}})}}


@hostile("length.safetensors", length=2**63 - 1)
@hostile("length.safetensors", length=2**64 - 1)
@hostile("length.safetensors", length=99_000_000)
@hostile("length.safetensors", length=0)
def a_header_with_a_wrong_length(path, mark, length):
    safetensors(path, META, length=length)


@hostile("range.safetensors", begin=0, end=10**12)
@hostile("range.safetensors", begin=10**12, end=10**12 + 8)
@hostile("range.safetensors", begin=8, end=0)
@hostile("range.safetensors", begin=-8, end=0)
def offsets_out_of_range(path, mark, begin, end):
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]}
    safetensors(path, {**META, "w": tensor}, bytes(8))


@hostile("shape.safetensors", shape=(HUGE,))
@hostile("shape.safetensors", shape=(2**32, 2**32, 2**32))
@hostile("shape.safetensors", shape=(-1, -2))
def a_shape_of_100_gb(path, mark, shape):
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}
    safetensors(path, {**META, "w": tensor}, bytes(8))


@hostile("bytes.safetensors", text=b"\xff\xfe\xfd\xfc")
@hostile("bytes.safetensors", text=b"[" * 1_000_000)
@hostile("bytes.safetensors", text=b'{"a":' * 1_000_000)
@hostile("bytes.safetensors", text=b"[]")
def a_header_that_is_not_one(path, mark, text):
    safetensors(path, text)


@hostile("cut.safetensors", part=0.0)
@hostile("cut.safetensors", part=0.01)
@hostile("cut.safetensors", part=0.3)
@hostile("cut.safetensors", part=0.999)
def a_kdiff_file_that_is_cut_off(path, mark, part):
    kdiff_file(path, config())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


@hostile("config.safetensors", settings={"num_blocks": 10**9})
@hostile("config.safetensors", settings={"model_channels": 10**12})
@hostile("config.safetensors", settings={"channel_mult": [10**6] * 3})
@hostile("config.safetensors", settings={"label_dim": 10**15})
@hostile("config.safetensors", settings={"name": "os.system"})
@hostile("config.safetensors", settings={"name": ["song_unet"]})
@hostile("config.safetensors", settings={"colour": 1})
def a_network_that_does_not_fit(path, mark, settings):
    kdiff_file(path, config(**settings))


@hostile("precond.safetensors", settings={"name": "eps", "steps": 10**12})
@hostile("precond.safetensors", settings={"name": "iddpm", "steps": 10**12})
@hostile("precond.safetensors", settings={"name": "__import__"})
@hostile("precond.safetensors", settings={"name": "edm", "sigma_data": float("nan")})
@hostile("precond.safetensors", settings=7)
def a_preconditioner_that_is_none(path, mark, settings):
    kdiff_file(path, {**config(), "precond": settings})


@hostile("deep.safetensors", text="[" * 200_000)
@hostile("deep.safetensors", text="null")
@hostile("deep.safetensors", text="{}")
def a_config_that_is_none(path, mark, text):
    kdiff_file(path, text)
