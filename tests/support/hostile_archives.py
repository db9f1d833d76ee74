"""Hostile pickles and torch files."""

import functools
import io
import pickle
import struct
import zipfile

import torch

from hostile_files import HUGE, SIDECAR, calls, register, zipped

FILES, hostile = register()
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
    """Its end names the place of one directory, but another one lies just before it. torch's reader
    takes the former. Python's takes the latter, which says that nothing is compressed."""
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
    """The data.pkl of a state dict whose one tensor claims a storage of `numel` elements."""

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
