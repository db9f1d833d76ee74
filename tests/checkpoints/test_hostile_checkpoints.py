"""Hostile files: each is refused in one line, by kdiff.load and by every format's own load; nothing
that they bring runs, nothing is written, and memory stays bounded."""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import pickle
import posix
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import kdiff
from kdiff.checkpoints import formats, native
from kdiff.networks import SongUNet

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}
SIDECAR = '{"prediction": "eps", "shape": [3, 8, 8]}'
TRUSTING = '{"prediction": "eps", "shape": [3, 8, 8], "trust": true}'
HUGE = 10**11 // 4  # float32 numbers in 100 GB

FILES = {}


def hostile(name, /, **settings):
    """Register a builder: `build(path, mark)` makes the file or folder `name` at `path`; what it
    brings would create the file `mark` if it ran."""

    def register(build):
        key = f"{build.__name__}-{name}" + "".join(f"-{v}" for v in settings.values())
        FILES[key] = name, functools.partial(build, **settings)
        return build

    return register


# --- pickles that call ---


class Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def calls(mark):
    touch = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "posix.system": Call(posix.system, touch),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "open": Call(builtins.open, str(mark), "w"),
        "getattr": Call(builtins.getattr, Call(__import__, "os"), "system"),
        "torch": Call(torch.save, 1, str(mark)),
        "load": Call(torch.load, io.BytesIO, False),
        "partial": Call(functools.partial(os.system, touch)),
    }


KINDS = list(calls(""))


def call(function):
    for kind in KINDS:
        for name in (
            ("a.pkl", "a.pt")
            if kind not in ("os.system", "eval")
            else ("a.pkl", "a.pt", "a.pth", "a.ckpt")
        ):
            hostile(name, kind=kind)(function)
    return function


@call
def a_pickle(path, mark, kind):
    path.write_bytes(pickle.dumps({"ema": calls(mark)[kind], "model": calls(mark)[kind]}))


@call
def a_torch_zip(path, mark, kind):
    torch.save({"model": {"w": torch.zeros(2)}, "ema": calls(mark)[kind], "step": 1}, path)


@hostile("old.pt")
@hostile("old.ckpt")
def an_old_torch_file(path, mark):
    saved = {"state_dict": calls(mark)["os.system"]}
    torch.save(saved, path, _use_new_zipfile_serialization=False)


@hostile("text.pkl")
def a_pickle_of_protocol_0(path, mark):
    path.write_bytes(f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode())


@hostile("numpy.pkl")
def a_pickle_that_numpy_would_open(path, mark):
    path.write_bytes(b"\x80\x04cnumpy.lib.npyio\nload\n(X\x01\x00\x00\x00aNI01\ntR.")


# --- zips ---


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@hostile("slip.pt")
@hostile("slip.pt2")
@hostile("slip.zip")
def a_zip_slip(path, mark):
    up = "../" * 12 + str(mark).lstrip("/")
    zipped(
        path,
        {
            up: b"x",
            str(mark): b"x",
            "archive/data.pkl": pickle.dumps({}),
            "archive/version": b"3\n",
        },
    )


@hostile("link.pt")
def a_zip_with_a_link(path, mark):
    link = zipfile.ZipInfo("archive/data.pkl")
    link.external_attr = 0o120777 << 16
    zipped(path, {link: b"/etc/passwd", "archive/version": b"3\n"})


@functools.cache
def bomb():
    """600 MB of zeros in 600 kB."""
    buffer = io.BytesIO()
    zipped(buffer, {"archive/version": b"3\n"})
    with (
        zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as member,
    ):
        for _ in range(60):
            member.write(bytes(10_000_000))
    return buffer.getvalue()


@hostile("bomb.pt")
@hostile("bomb.pkl")
@hostile("bomb.safetensors")
def a_zip_bomb(path, mark):
    path.write_bytes(bomb())


@hostile("two.pt")
def a_zip_bomb_with_a_harmless_directory(path, mark):
    """Its end names the place of one directory, and has the other one before it: Python's reader
    takes that, which says that nothing is compressed; torch's takes the first."""
    content = bomb()
    size, start = struct.unpack_from("<2L", content, len(content) - 10)
    harmless, entry = bytearray(content[start : start + size]), 0
    while entry < size:
        struct.pack_into("<H", harmless, entry + 10, zipfile.ZIP_STORED)
        entry += 46 + sum(struct.unpack_from("<3H", harmless, entry + 28))
    path.write_bytes(content[: start + size] + harmless + content[start + size :])
    with zipfile.ZipFile(path) as archive:
        assert not any(member.compress_type for member in archive.infolist())


@hostile("script.pt")
def a_bomb_of_torchscript(path, mark):
    names = {"archive/constants.pkl": b"", "archive/data.pkl": b"", "archive/version": b"3\n"}
    zipped(path, {**names, "archive/code/a.py": bytes(100_000_000)}, zipfile.ZIP_DEFLATED)
    path.with_name(path.name + ".json").write_text(SIDECAR)


@hostile("many.pt")
def a_zip_of_many_members(path, mark):
    zipped(path, {f"archive/data/{i}": b"" for i in range(20_000)})


def pickled_storage(numel, shape, stride, dtype=torch.FloatStorage):
    """data.pkl of a state dict of one tensor that claims a storage of `numel`."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            arguments = (Storage(), 0, shape, stride, False, {})
            return torch._utils._rebuild_tensor_v2, arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", dtype, "0", "cpu", numel) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"model": {"w": Tensor()}, "ema": {"w": Tensor()}, "step": 1})
    return buffer.getvalue()


@hostile("storage.pt", numel=HUGE, shape=(HUGE,), stride=(1,))
@hostile("storage.pth", numel=HUGE, shape=(HUGE,), stride=(1,))
@hostile("view.pt", numel=4, shape=(HUGE,), stride=(0,))
@hostile("beyond.pt", numel=4, shape=(HUGE,), stride=(1,))
@hostile("negative.pt", numel=-1, shape=(2,), stride=(1,))
def a_tensor_of_100_gb(path, mark, numel, shape, stride):
    content = pickled_storage(numel, shape, stride)
    members = {"data.pkl": content, "data/0": bytes(16), "version": b"3\n", "byteorder": b"little"}
    zipped(path, {f"archive/{name}": value for name, value in members.items()})


@hostile("cut.pt", part=0.1)
@hostile("cut.pt", part=0.5)
@hostile("cut.pt", part=0.99)
def a_torch_zip_that_is_cut_off(path, mark, part):
    torch.save({"model": {str(i): torch.zeros(100) for i in range(10)}}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


# --- safetensors ---


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


# --- programs ---


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


# The last one's folder in the archive is named x.debug_pkl, like what holds no source.
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
    """torch's reader of zip archives finds such names too."""
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


# --- folders, and paths that are not files ---


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


# --- what must hold ---


@pytest.fixture
def made(tmp_path):
    """made(key): the file, what it would leave behind, and all that is there before."""

    def make(key):
        name, build = FILES[key]
        (tmp_path / "in").mkdir()
        build(tmp_path / "in" / name, tmp_path / "mark")
        return tmp_path / "in" / name, tmp_path / "mark"

    def hung(*_):
        raise AssertionError("it takes too long")

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(60)
    yield make
    signal.alarm(0)


def test_there_are_enough():
    assert len(FILES) >= 30


@pytest.mark.parametrize("kind", ["os.system", "posix.system", "eval", "exec", "open", "partial"])
def test_the_traps_would_spring(tmp_path, kind):
    a_pickle(tmp_path / "a.pkl", tmp_path / "mark", kind)
    pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert (tmp_path / "mark").exists()


def test_a_program_that_is_loaded_runs(tmp_path):
    path, mark = tmp_path / "x.debug_pkl.pt", tmp_path / "mark"
    torchscript_that_reaches_files(path, mark)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0].startswith("x.debug_pkl/")
    with pytest.raises(ValueError, match="a program, which can do anything"):
        kdiff.load(path)
    assert not mark.exists()
    torch.jit.load(path)
    assert mark.exists()


@pytest.mark.parametrize("key", FILES)
def test_it_is_refused_in_one_line_and_nothing_ran(made, key, monkeypatch):
    path, mark = made(key)
    monkeypatch.chdir(path.parent)
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(ValueError) as caught:
        kdiff.load(path)
    message = str(caught.value)
    assert "\n" not in message and 10 < len(message) < 3000
    if not stat_refuses(path):
        for module in formats().values():
            with pytest.raises(Exception):  # noqa: B017  (it may trust what detect has seen)
                module.load(path)
    assert not mark.exists()
    assert sorted(p.name for p in path.parent.iterdir()) == before
    assert [p.name for p in path.parent.parent.iterdir()] == ["in"]


def stat_refuses(path: Path) -> bool:
    """What find_format never lets a format see."""
    return not (path.is_file() or path.is_dir())


HEAVY = [
    key
    for key in FILES
    if any(
        word in key
        for word in (
            "bomb",
            "100_gb",
            "large",
            "not_fit",
            "preconditioner",
            "length",
            "deep",
            "pickle-unet",
        )
    )
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_the_heavy_ones_are_refused_within_half_a_gigabyte(tmp_path):
    """All in one process, whose data may grow by 512 MB from where it is after importing."""
    paths = []
    for i, key in enumerate(HEAVY):
        name, build = FILES[key]
        (tmp_path / str(i)).mkdir()
        build(tmp_path / str(i) / name, tmp_path / "mark")
        paths.append(str(tmp_path / str(i) / name))
    code = """
        import resource, sys, kdiff, kdiff.checkpoints, torch, json
        kdiff.checkpoints.formats()
        try:
            import diffusers, onnxruntime
            from diffusers import UNet2DModel
        except ImportError:
            pass
        lines = open("/proc/self/status").read().splitlines()
        data = int(next(line for line in lines if line.startswith("VmData")).split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (data + 2**29, data + 2**29))
        for path in sys.argv[1:]:
            try:
                kdiff.load(path)
            except ValueError as error:
                reason = str(error)
                if "MemoryError" in reason or "alloc" in reason:
                    print(path, reason)
                continue
            print("loaded", path)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *paths]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr[-2000:]
    assert not (tmp_path / "mark").exists()
