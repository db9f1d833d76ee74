"""Images and references that claim more than they have are refused before memory is taken."""

import io
import json
import struct
import time
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.references import FORMAT, find_reference

MEGABYTE = 2**20
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


@contextmanager
def cheaply():
    """In less than 60 megabytes and five seconds."""
    started = time.perf_counter()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 60 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 5


def refused(call, *parts):
    with cheaply(), pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for part in parts:
        assert part in message


def images(path):
    return lambda: [None for _ in open_pictures(path).batches(2)]


def reference(path):
    return lambda: find_reference(str(path), "toy", None)


# Arrays


def npy(shape, dtype="|u1", data=b""):
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def npz(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_statistics_that_claim_eight_terabytes(tmp_path):
    mean = npy((10**6,), "<f8", bytes(8 * 10**6))
    path = npz(tmp_path / "x.npz", mu=mean, sigma=npy((10**6, 10**6), "<f8"))
    refused(reference(path), "x.npz cannot be read", "its sigma claims 8,000,000,000,000 bytes")


@pytest.fixture(scope="module")
def inflating():
    """300 million zeros, which compress to 0.3 megabytes."""
    return bytes(300 * 10**6)


def test_statistics_that_inflate(tmp_path, inflating):
    wide = npy((6000, 6000), "<f8", inflating[: 8 * 6000**2])
    path = npz(tmp_path / "x.npz", mu=npy((6000,), "<f8", bytes(48000)), sigma=wide)
    refused(reference(path), "its sigma claims 288,000,000 bytes, of which the file has")


def test_images_that_inflate(tmp_path, inflating):
    path = npz(tmp_path / "x.npz", arr_0=npy((2, 7000, 7000, 3), data=inflating[: 294 * 10**6]))
    refused(images(path), "an image claims 147,000,000 bytes")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_header_that_inflates(suffix, tmp_path, inflating):
    header = b"\x93NUMPY\2\0" + struct.pack("<I", len(inflating)) + inflating
    path = tmp_path / f"x{suffix}"
    path.write_bytes(header[: 2**20]) if suffix == ".npy" else npz(path, arr_0=header, mu=header)
    refused(images(path), "cannot be read", "its header claims 300,000,000 bytes")
    if suffix == ".npz":
        npz(path, mu=header, sigma=header)
        refused(reference(path), "its header claims 300,000,000 bytes")


HEADERS = {
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-5, 8, 8, 3)}",
    "nested": b"{'descr': " + b"(" * 4000 + b", 'fortran_order': False, 'shape': ()}",
    "minus": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"5,)}",
    "code": b"__import__('os').system('true')",
    "no text": bytes(range(256)),
    "keys": b"{'shape': (2,)}",
    "empty": b"",
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1" + b"0" * 4000 + b")}",
    "void": b"{'descr': '|V0', 'fortran_order': False, 'shape': (100000000000000, 8, 8, 3)}",
}


@pytest.mark.parametrize("case", HEADERS)
def test_garbage_in_a_header(case, tmp_path):
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(HEADERS[case])) + HEADERS[case]
    (tmp_path / "x.npy").write_bytes(data)
    refused(images(tmp_path / "x.npy"), "x.npy")
    refused(images(npz(tmp_path / "x.npz", arr_0=data)), "x.npz")
    refused(reference(npz(tmp_path / "x.npz", mu=data, sigma=data)), "x.npz")


def test_truncated_statistics(tmp_path):
    rows = np.random.default_rng(0).standard_normal((50, 8))
    np.savez(tmp_path / "x.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    whole = (tmp_path / "x.npz").read_bytes()
    for length in range(37, len(whole), 37):
        (tmp_path / "x.npz").write_bytes(whole[:length])
        refused(reference(tmp_path / "x.npz"), "x.npz cannot be read")
    flipped = bytearray(whole)
    flipped[whole.rindex(b"NUMPY") + 200] ^= 1
    (tmp_path / "x.npz").write_bytes(flipped)
    refused(reference(tmp_path / "x.npz"), "CRC")


def test_a_sparse_file_of_pixels(tmp_path):
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.write(npy((2, 10**6, 10**6, 3)))
        file.truncate(7 * 10**12)
    refused(images(path), "x.npy", "1000000 x 1000000 pixels")


# safetensors


def own_reference(path, tensors, **label):
    metadata = {"format": FORMAT, "label": json.dumps({"name": "x", "n": 50, **label})}
    save_file(tensors, path, metadata)
    return path


RIGHT = {"mean": np.zeros(3, np.float32), "cov": np.float32([1, 0, 0, 1, 0, 1])}
WRONG = {
    "no mean": ({"cov": RIGHT["cov"]}, {}),
    "whole numbers": ({"mean": np.zeros(3, np.int32), "cov": np.ones(6, np.int32)}, {}),
    "sizes": ({**RIGHT, "mean": np.zeros(4, np.float32)}, {}),
    "matrix": ({**RIGHT, "mean": np.zeros((3, 1), np.float32)}, {}),
    "nothing": ({"mean": np.zeros(0, np.float32), "cov": np.zeros(0, np.float32)}, {}),
    "NaN": ({**RIGHT, "mean": np.full(3, np.nan, np.float32)}, {}),
    "n of text": (RIGHT, {"n": "many"}),
    "no images": (RIGHT, {"n": 0}),
    "n true": (RIGHT, {"n": True}),
    "n beyond floats": (RIGHT, {"n": 10**400}),
    "name": (RIGHT, {"name": 3}),
    "other keys": (RIGHT, {"colour": "red"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_our_own_files_with_mistakes(case, tmp_path):
    tensors, label = WRONG[case]
    find_reference(str(own_reference(tmp_path / "right.safetensors", RIGHT)), "toy", None)
    refused(reference(own_reference(tmp_path / "x.safetensors", tensors, **label)), "x.safetensors")


def test_safetensors_that_are_damaged(tmp_path):
    path = own_reference(tmp_path / "x.safetensors", RIGHT)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        refused(reference(path), "x.safetensors")
    for header in (
        b'{"mean":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"mean":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}',
        b"[" * 100_000,
        b"{}",
    ):
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        refused(reference(path), "x.safetensors")
    path.write_bytes(struct.pack("<Q", 2**63) + bytes(40))
    refused(reference(path), "x.safetensors")
    save_file(RIGHT, path, {"format": FORMAT, "label": "[" * 100_000})
    refused(reference(path), "x.safetensors has a label")


# Pictures


def png(width, height, rows, bits=8, colour=2):
    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMBS = {
    "greater than Pillow takes": (20_000, 20_000, "decompression bomb"),
    "greater than Pillow likes": (10_000, 10_000, "decompression bomb"),
    "of few bytes": (6_000, 6_000, "claims 108,000,000 bytes"),
}


@pytest.mark.parametrize("case", BOMBS)
@pytest.mark.parametrize("zipped", [False, True])
def test_pictures_that_are_bombs(case, zipped, tmp_path):
    width, height, message = BOMBS[case]
    bomb = png(width, height, bytes((width // 8 + 1) * height), bits=1, colour=0)
    assert len(bomb) < 100_000
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.png").write_bytes(bomb)
    path = folder
    if zipped:
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "0.png", "0.png")
            archive.write(folder / "1.png", "1.png")
    refused(images(path), "0.png", message)


def test_a_zip_whose_picture_inflates(tmp_path, inflating):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", inflating)
    refused(images(tmp_path / "x.zip"), "0.png claims 300,000,000 bytes")


def test_a_zip_with_a_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning):
        for data in (b"a", b"b"):
            archive.writestr("0.png", data)
    refused(images(tmp_path / "x.zip"), "has several files named 0.png")


def test_a_large_flat_picture_is_no_bomb(tmp_path):
    for i in range(2):
        Image.new("RGB", (2048, 2048)).save(tmp_path / f"{i}.png")
    assert open_pictures(tmp_path).size == (2048, 2048)


@pytest.mark.parametrize(
    "suffix", [".png", ".jpg", ".gif", ".bmp", ".webp", ".tif", ".ppm", ".tga"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of what Pillow repairs
def test_mutated_pictures_are_read_or_refused(suffix, tmp_path):
    stream = io.BytesIO()
    image = Image.fromarray(IMAGES[0])
    image.save(stream, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()))
    rng, whole = np.random.default_rng(1), stream.getvalue()
    image.save(tmp_path / f"0{suffix}")
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        (tmp_path / f"1{suffix}").write_bytes(data[: rng.integers(1, len(data) + 1)])
        with cheaply():
            try:
                images(tmp_path)()
            except ValueError as error:
                assert "\n" not in str(error)
