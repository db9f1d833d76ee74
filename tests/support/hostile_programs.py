"""Hostile programs: TorchScript, torch.export and ONNX."""

import json
import pickle
import zipfile

import torch
from torch import nn

from hostile_files import SIDECAR, calls, register, zipped

TRUSTING = '{"prediction": "eps", "shape": [3, 8, 8], "trust": true}'
FILES, hostile = register()


class Saves(nn.Module):
    def __init__(self, mark: str):
        super().__init__()
        self.mark = mark

    def forward(self, x, t):
        torch.save(x, self.mark)
        return x


class Maps(nn.Module):
    def __init__(self, mark: str):
        super().__init__()
        self.mark = mark

    def forward(self, x, t):
        return torch.from_file(self.mark, True, 1) + x


class SavesWhenLoaded(nn.Module):
    def __init__(self, mark: str):
        super().__init__()
        self.mark = mark

    def forward(self, x, t):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.mark = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.mark)


class Harmless(nn.Module):
    def forward(self, x, t):
        return x * t


# The archive of x.debug_pkl.pt has a folder of that name, like a member without source.
REACHING = {"saves.pt": Saves, "maps.pt": Maps, "loads.pt": SavesWhenLoaded}
REACHING |= {"x.debug_pkl.pt": SavesWhenLoaded, "data.zip": SavesWhenLoaded}


@hostile("saves.pt")
@hostile("maps.pt")
@hostile("loads.pt")
@hostile("x.debug_pkl.pt")
@hostile("data.zip")
def torchscript_that_reaches_files(path, mark):
    torch.jit.script(REACHING[path.name](str(mark))).save(path)
    path.with_name(path.name + ".json").write_text(TRUSTING)


@hostile("renamed.pt", name="constants.pkl")
@hostile("renamed.pt", name="version")
@hostile("renamed.pt", name="code/")
def torchscript_whose_names_are_in_capitals(path, mark, name):
    """torch's reader of zip archives finds such names as well."""
    torch.jit.script(SavesWhenLoaded(str(mark))).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {n.replace(name, name.upper()): archive.read(n) for n in archive.namelist()}
    zipped(path, members)
    path.with_name(path.name + ".json").write_text(TRUSTING)


@hostile("prefix.pt")
def torchscript_behind_something_else(path, mark):
    torch.jit.script(Harmless()).save(path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    path.with_name(path.name + ".json").write_text(SIDECAR)


@hostile("alone.pt")
def torchscript_without_settings(path, mark):
    torch.jit.script(Harmless()).save(path)


@hostile("e.pt2", kind="sympy")
@hostile("e.pt2", kind="target")
@hostile("e.pt2", kind="pickle")
def an_exported_program_that_runs_code(path, mark, kind):
    code = f"open({str(mark)!r}, 'w')"
    graph = {"target": "torch.os.system", "expr_str": f"eval({code!r})"}
    members = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "models/model.json": json.dumps({"graph_module": graph}),
        "data/sample_inputs/model.pt": pickle.dumps(calls(mark)["os.system"]),
        "data/weights/model.pt": pickle.dumps(calls(mark)["eval"]),
    }
    zipped(path, {f"archive/{name}": value for name, value in members.items()})
    path.with_name(path.name + ".json").write_text(TRUSTING)


@hostile("garbage.onnx", content=b"\x08\x07" + bytes(100))
@hostile("garbage.onnx", content=b"")
@hostile("garbage.onnx", content=b"\xff" * 1000)
def an_onnx_file_of_nothing(path, mark, content):
    path.write_bytes(content)
    path.with_name(path.name + ".json").write_text(SIDECAR)


@hostile("outside.onnx")
def an_onnx_file_with_weights_elsewhere(path, mark):
    """ModelProto by hand: one initializer whose external data is /etc/passwd."""

    def field(number, content):
        if isinstance(content, int):
            return bytes([number << 3, content])
        content = content.encode() if isinstance(content, str) else content
        return bytes([number << 3 | 2, len(content)]) + content

    location = field(1, "location") + field(2, "../" * 12 + "etc/passwd")
    tensor = field(1, 4) + field(2, 1) + field(8, "w") + field(13, location) + field(14, 1)
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Add")
    value = [field(1, n) + field(2, field(1, field(1, 1))) for n in ("x", "t", "y")]
    graph = field(1, node) + field(2, "g") + field(5, tensor)
    graph += field(11, value[0]) + field(11, value[1]) + field(12, value[2])
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)))
    path.with_name(path.name + ".json").write_text(SIDECAR)
