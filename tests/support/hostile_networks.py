"""Pickles like NVIDIA's that call functions, or claim to be what they are not."""

import pickle
import struct
import sys
from contextlib import contextmanager

import pytest
import torch

import kdiff
import nvidia_pickles
from hostile_files import Call
from kdiff.checkpoints import edm
from nvidia_pickles import network

EVIL = ""  # the file that shell commands and programs would leave; see `trapped`


@contextmanager
def trapped(folder, monkeypatch):
    """Set EVIL, the name of a file that must not exist at the end."""
    monkeypatch.setattr(sys.modules[__name__], "EVIL", str(folder / "it_ran"))
    monkeypatch.setattr(nvidia_pickles, "SOURCE", f"open({EVIL!r}, 'w')")
    nvidia_pickles.nvidia_names(monkeypatch)
    yield
    assert not (folder / "it_ran").exists()


def holding(part):
    """A network that is just one module."""
    made = network({})
    made.meta["state"]["_modules"]["a"] = part
    return made


def write(tmp_path, content, protocol=4):
    path = tmp_path / "network-snapshot-000001.pkl"
    path.write_bytes(content if type(content) is bytes else pickle.dumps(content, protocol))
    return path


def refused(path) -> str:
    """The line with which kdiff.load refuses. edm.load must refuse in one line as well."""
    for load in (kdiff.load, edm.load):
        with pytest.raises(ValueError) as caught:
            load(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    return str(caught.value)


def storage(claimed=4, dtype="FloatStorage", stored=None, data=bytes(16), order=True):
    """The bytes of a torch storage, with any claims about itself."""
    system = {"protocol_version": 1001, "little_endian": order, "type_sizes": {}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    described = (
        b"\x80\x02(X\x07\x00\x00\x00storage"
        + b"ctorch\n"
        + dtype.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + pickle.dumps(claimed, 2)[2:-1]
        + b"NtQ."
    )
    keys = pickle.dumps(["0"], 2)
    count = struct.pack("<q", claimed if stored is None else stored)
    return head + described + keys + count + data


def tensor(content=None, offset=0, shape=(4,), stride=(1,)):
    load = Call(torch.storage._load_from_bytes, storage() if content is None else content)
    return Call(torch._utils._rebuild_tensor_v2, load, offset, shape, stride, False, {})
