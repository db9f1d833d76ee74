"""Weights of ONNX models in files of their own: which are found, and which are refused."""

import json
import os

import numpy as np
import pytest

import kdiff
from kdiff.checkpoints import files, onnx_external
from kdiff.checkpoints.onnx_external import HOLDS, external_files
from kdiff.models import sha256

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
h = onnx.helper
SETTINGS = {"prediction": "eps", "shape": [1], "alphas_cumprod": "linear"}
VALUE = np.array([3.0], np.float32).tobytes()


def tensor(*entries, name="w"):
    """One float that is elsewhere: `entries` of location, offset .."""
    made = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=1)
    for key, value in entries:
        made.external_data.add(key=key, value=value)
    return made


def at(location):
    return tensor(("location", location))


def value_info(name):
    return h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def write(path, *before, initializers=(), functions=(), extra=()):
    """x + w + t, where `before` are nodes that make w."""
    nodes = [*before, h.make_node("Add", ["x", "w"], ["s"]), h.make_node("Add", ["s", "t"], ["y"])]
    inputs, outputs = [value_info("x"), value_info("t")], [value_info("y")]
    graph = h.make_graph(nodes, "g", inputs, outputs, list(initializers))
    graph.sparse_initializer.extend(extra)
    opsets = [h.make_opsetid("", 17), h.make_opsetid("own", 1)]
    model = h.make_model(graph, opset_imports=opsets, functions=list(functions))
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    path.with_name(path.name + ".json").write_text(json.dumps(SETTINGS))
    return path


def constant(value, output="w"):
    return h.make_node("Constant", [], [output], value=value)


def initializer(path, location):
    return write(path, initializers=[at(location)])


def attribute(path, location):
    return write(path, constant(at(location)))


def subgraph(path, location):
    branch = h.make_graph(
        [h.make_node("Identity", ["v"], ["r"])], "b", [], [value_info("r")], [at(location)]
    )
    branch.initializer[0].name = "v"
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    node = h.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
    return write(path, node, initializers=[yes])


def function(path, location):
    body = [constant(at(location), "v"), h.make_node("Add", ["a", "v"], ["b"])]
    own = h.make_function("own", "F", ["a"], ["b"], body, [h.make_opsetid("", 17)])
    zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    call = h.make_node("F", ["zero"], ["w"], domain="own")
    return write(path, call, initializers=[zero], functions=[own])


def run(path):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    zero = np.zeros(1, np.float32)
    return session.run(None, {"x": zero, "t": zero})[0].tolist()


@pytest.fixture
def folder(tmp_path):
    ort.set_default_logger_severity(4)
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").write_bytes(VALUE)
    return tmp_path / "in"


@pytest.mark.parametrize("place", [initializer, attribute, subgraph, function])
@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "deep/er/w.bin"])
def test_weights_in_any_place_are_found_and_hashed(place, location, folder):
    file = folder / location
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(VALUE)
    path = place(folder / "m.onnx", location)
    assert run(path) == [3.0] and external_files(path) == [file]
    assert files(path) == [path, folder / "m.onnx.json", file]
    before = sha256(path)
    file.write_bytes(np.array([4.0], np.float32).tobytes())
    assert run(path) == [4.0] and sha256(path) != before
    assert kdiff.load(path).shape == (1,)


def test_sparse_tensors_are_looked_into(folder):
    (folder / "w.bin").write_bytes(VALUE)
    (folder / "i.bin").write_bytes(np.zeros(1, np.int64).tobytes())
    indices = tensor(("location", "i.bin"), name="")
    indices.data_type = onnx.TensorProto.INT64
    sparse = onnx.SparseTensorProto(values=at("w.bin"), indices=indices, dims=[1])
    path = write(folder / "m.onnx", extra=[sparse])
    assert external_files(path) == [folder / "i.bin", folder / "w.bin"]


def test_every_message_that_can_hold_a_tensor_is_known():
    """The tables agree with onnx's own description of its messages."""
    described, pending = {}, [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name not in described:
            fields = {f.number: f.message_type for f in message.fields if f.message_type}
            described[message.name] = {number: inside.name for number, inside in fields.items()}
            pending += fields.values()
    holding = {"TensorProto"}
    for _ in described:  # as often as the longest chain could need
        holding |= {name for name, inside in described.items() if holding & {*inside.values()}}
    expected = {
        name: {number: inside for number, inside in described[name].items() if inside in holding}
        for name in holding
    }
    expected["TensorProto"] = {13: "StringStringEntryProto"}
    known = {
        f"{name}Proto": {number: f"{inside}Proto" for number, inside in fields.items()}
        for name, fields in HOLDS.items()
    }
    assert known == expected


OUTSIDE = "is not a name in the model's folder"
REFUSED = {
    "../outside": OUTSIDE,
    "deep/../../outside": OUTSIDE,
    "deep/../w.bin": OUTSIDE,
    "{outside}": OUTSIDE,
    "/etc/passwd": OUTSIDE,
    "*/_ORT_MEM_ADDR_/*": OUTSIDE,
    "link": "a link that leads out",
    "folderlink/outside": "a link that leads out",
    "linktolink": "a link that leads out",
    "nothing": "there is no such file",
    "loop": "there is no such file",
    "": "there is no such file",
    ".": "there is no such file",
    "pipe": "there is no such file",
    "w.bin\0.txt": "there is no such file",
}


@pytest.mark.parametrize("place", [initializer, attribute, subgraph, function])
@pytest.mark.parametrize("location", REFUSED)
def test_weights_anywhere_else_are_refused(place, location, folder):
    (folder / "w.bin").write_bytes(VALUE)
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(VALUE)
    (folder / "deep").mkdir()
    (folder / "link").symlink_to("../outside")
    (folder / "linktolink").symlink_to("link")
    (folder / "folderlink").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    path = place(folder / "m.onnx", location.format(outside=folder.parent / "outside"))
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=REFUSED[location]) as caught:
            use(path)
        assert "\n" not in str(caught.value)


def test_a_link_within_the_folder_is_followed(folder):
    (folder / "blob").write_bytes(VALUE)
    (folder / "w.bin").symlink_to("blob")
    path = initializer(folder / "m.onnx", "w.bin")
    assert run(path) == [3.0] and external_files(path) == [folder / "w.bin"]


def test_of_two_locations_both_must_be_inside(folder):
    (folder / "w.bin").write_bytes(VALUE)
    for pair in (("w.bin", "../outside"), ("../outside", "w.bin")):
        twice = tensor(*(("location", place) for place in pair))
        path = write(folder / "m.onnx", initializers=[twice])
        with pytest.raises(ValueError, match=OUTSIDE):
            external_files(path)


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\xff\x01" + bytes(100),  # a field of 255 bytes, in a file of 103
        b"\x3a" + b"\xff" * 20,
        b"\x3a" + varint(2**63) + bytes(100),
        b"\x3b" + bytes(100),  # a group
        b"\x3a\x04\x2a\x02\x6a\x7f",
        b"\xff" * 1000,
        b"\x3a",
    ],
)
def test_damage(content, folder):
    path = folder / "m.onnx"
    path.write_bytes(content)
    path.with_name("m.onnx.json").write_text(json.dumps(SETTINGS))
    for use in (kdiff.load, sha256):
        with pytest.raises(ValueError, match=r"m\.onnx is damaged"):
            use(path)


def test_deep_graphs_take_no_stack_and_many_fields_no_time(folder, monkeypatch):
    inside = b""
    for _ in range(3000):  # a graph in an attribute of a node of a graph
        for number in (6, 5, 1):
            inside = bytes([number << 3 | 2]) + varint(len(inside)) + inside
    path = folder / "m.onnx"
    path.write_bytes(b"\x3a" + varint(len(inside)) + inside)
    assert external_files(path) == []
    monkeypatch.setattr(onnx_external, "MAX_FIELDS", 1000)
    with pytest.raises(ValueError, match="is damaged"):
        external_files(path)
