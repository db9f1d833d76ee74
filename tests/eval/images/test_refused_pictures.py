"""Sources of images: what they refuse, in one line."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.images.pictures import open_pictures
from picture_sources import IMAGES, everything, refused, save_all, zipped


class Bomb:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


# Kinds of images


def png(bit_depth, colour_type, row):
    """A 4 x 4 PNG from its specification, for what Pillow does not write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 4, 4, bit_depth, colour_type, 0, 0, 0)
    data = zlib.compress((b"\0" + row) * 4)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_transparency_depth_and_other_colours_are_refused(tmp_path):
    def case(name, save):
        folder = save_all(np.zeros((2, 4, 4, 3), np.uint8), tmp_path / name)
        save(folder / "1.png")
        return folder

    rgba = Image.fromarray(np.full((4, 4, 4), 255, np.uint8))
    palette = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    grey_alpha = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("LA")
    refused(case("rgba", rgba.save), "1.png has transparency", "background")
    refused(case("la", grey_alpha.save), "1.png has transparency")
    refused(case("p", lambda path: palette.save(path, transparency=0)), "has transparency")
    deep_rgb = png(16, 2, bytes(24))
    refused(case("rgb16", lambda path: path.write_bytes(deep_rgb)), "1.png has more than 8 bits")
    deep_grey = Image.fromarray(np.zeros((4, 4), np.uint16))
    refused(case("grey16", deep_grey.save), "1.png has more than 8 bits")
    deep_ppm = b"P6\n4 4\n65535\n" + bytes(96)
    refused(case("ppm", lambda path: path.write_bytes(deep_ppm)), "more than 8 bits")
    cmyk = rgba.convert("CMYK")
    refused(case("cmyk", lambda path: cmyk.save(path, "TIFF")), "1.png is CMYK")
    plain = case("plain", lambda path: path.write_bytes(png(8, 2, bytes(range(12)))))
    assert everything(open_pictures(plain))[1, 0, 0].tolist() == [0, 1, 2]  # the maker is right


def test_mixed_sizes_name_two_files_and_their_sizes(tmp_path):
    folder = save_all(IMAGES[:3], tmp_path / "images")
    Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(folder / "2.png")
    with pytest.raises(ValueError, match=r"0\.png: 5x6, 2\.png: 9x7"):
        open_pictures(folder)  # at once, before any are decoded


# Too few, and damage


def test_none_one_or_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no images")
    refused(save_all(IMAGES[:1], tmp_path / "one"), "just one image")
    refused(zipped(tmp_path / "empty", tmp_path / "empty.zip"), "has no images")
    np.save(tmp_path / "one.npy", IMAGES[:1])
    refused(tmp_path / "one.npy", "just one image")
    refused(tmp_path / "nowhere", "no folder or file", "nowhere")
    (tmp_path / "a.png").write_bytes(b"")
    refused(tmp_path / "a.png", "is not a folder, .zip, .npz or .npy")


@pytest.mark.parametrize("keep", [0, 4, 20, 60])
def test_a_truncated_png_is_named(keep, tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    whole = (folder / "3.png").read_bytes()
    assert keep < len(whole) - 30
    (folder / "3.png").write_bytes(whole[:keep])
    refused(folder, "3.png cannot be read")
    refused(zipped(folder, tmp_path / "x.zip"), "3.png cannot be read")


def test_truncated_and_damaged_archives(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    np.savez(tmp_path / "x.npz", IMAGES)
    for path in (zipped(folder, tmp_path / "x.zip"), tmp_path / "x.npz"):
        whole = path.read_bytes()
        for length in (10, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            refused(path, "cannot be read")
        path.write_bytes(b"not a zip at all" * 50)
        refused(path, "cannot be read")


def test_an_array_that_is_cut_off_or_has_flipped_bits(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    whole = (tmp_path / "x.npy").read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        (tmp_path / "x.npy").write_bytes(whole[:length])
        refused(tmp_path / "x.npy", "x.npy")
    np.savez(tmp_path / "x.npz", IMAGES)
    flipped = bytearray((tmp_path / "x.npz").read_bytes())
    flipped[600] ^= 1  # only the checksum knows
    (tmp_path / "x.npz").write_bytes(flipped)
    refused(tmp_path / "x.npz", "cannot be read", "CRC")


# Arrays


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_pickled_objects_are_never_opened(suffix, tmp_path):
    path, trace = tmp_path / f"x{suffix}", tmp_path / "it ran"
    bombs = np.array([Bomb(trace)] * 3, dtype=object)
    (np.save if suffix == ".npy" else np.savez)(path, bombs)
    refused(path, "pickled Python objects")
    assert not trace.exists()
    (tmp_path / f"bare{suffix}").write_bytes(pickle.dumps(Bomb(trace)))
    refused(tmp_path / f"bare{suffix}", "cannot be read")
    assert not trace.exists()
    np.load(path, allow_pickle=True)[() if suffix == ".npy" else "arr_0"]
    assert trace.exists()  # so it would have been seen


ARRAYS = {
    "float32": (IMAGES.astype(np.float32) / 255, "holds float32; images must be uint8"),
    "uint16": (IMAGES.astype(np.uint16), "holds uint16"),
    "NCHW": (np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)), "x.transpose(0, 2, 3, 1)"),
    "RGBA": (np.zeros((2, 8, 8, 4), np.uint8), "is RGBA"),
    "one image": (IMAGES[0], "[N, H, W, 3 or 1]"),
    "rows": (IMAGES.reshape(12, -1), "[N, H, W, 3 or 1]"),
    "a number": (np.uint8(3), "[N, H, W, 3 or 1]"),
    "Fortran": (np.asfortranarray(IMAGES), "Fortran's order"),
    "no pixels": (np.zeros((5, 0, 4, 3), np.uint8), "without pixels"),
    "none": (np.zeros((0, 4, 4, 3), np.uint8), "has no images"),
    "records": (np.zeros(3, dtype=[("a", "u1")]), "uint8"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_images(case, tmp_path):
    array, message = ARRAYS[case]
    np.savez(tmp_path / "x.npz", array)
    refused(tmp_path / "x.npz", "x.npz", message)


def test_an_npz_with_several_arrays_asks_which(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=IMAGES, labels=np.arange(12))
    refused(tmp_path / "x.npz", "train_images, labels", "x.npz:train_images")
    refused(f"{tmp_path}/x.npz:test_images", "no array 'test_images'", "train_images, labels")
    refused(f"{tmp_path}/y.npz:a", "no folder or file", "y.npz")
    np.savez(tmp_path / "empty.npz")
    refused(tmp_path / "empty.npz", "no arrays")


def test_a_header_that_claims_more_than_there_is(tmp_path):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "x.npy").write_bytes(stream.getvalue())
    refused(tmp_path / "x.npy", "is cut off")


# CIFAR-10


def test_another_cifar10_is_not_taken_for_it(tmp_path):
    np.savez(tmp_path / "c.npz", train_images=IMAGES, test_images=IMAGES)
    with pytest.raises(ValueError, match="is not CIFAR-10's test set in the usual order"):
        open_pictures("cifar10:test", tmp_path / "c.npz")
    with pytest.raises(ValueError, match="cifar10:train and cifar10:test, not cifar10:val"):
        open_pictures("cifar10:val", tmp_path / "c.npz")


def test_cifar10_without_a_network_is_one_line(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")

    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", no_network)
    monkeypatch.setenv("KDIFF_HOME", str(tmp_path / "home"))
    message = refused("cifar10:train", "could not be downloaded (Name or service not known)")
    assert str(tmp_path / "home" / "data") in message and "--data" in message
