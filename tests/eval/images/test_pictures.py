"""Sources of images: what they give, and what they refuse, in one line."""

import io
import pickle
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.images.pictures import open_pictures

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


class Bomb:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def save_all(images, folder, suffix=".png"):
    folder.mkdir(exist_ok=True, parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}")
    return folder


def zipped(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, prefix + file.name)
    return path


def everything(source, batch=5):
    return np.concatenate(list(source.batches(batch)))


def refused(path, *parts):
    """The one line with which opening or reading fails."""
    with pytest.raises(ValueError) as caught:
        everything(open_pictures(path))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for part in parts:
        assert part in message
    return message


# Every source gives the same arrays


def folder(tmp_path):
    return save_all(IMAGES, tmp_path / "images")


def archive(tmp_path):
    return zipped(folder(tmp_path), tmp_path / "images.zip", "deep/er/")


def npz(tmp_path):
    np.savez(tmp_path / "x.npz", arr_0=IMAGES, arr_1=np.arange(12))
    return tmp_path / "x.npz"


def compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", mine=IMAGES)
    return tmp_path / "x.npz"


def part_of_npz(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", train_images=IMAGES[::-1], test_images=IMAGES)
    return f"{tmp_path / 'x.npz'}:test_images"


def npy(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("source", [folder, archive, npz, compressed_npz, part_of_npz, npy])
def test_every_source_gives_the_same_images_in_order(source, tmp_path):
    pictures = open_pictures(source(tmp_path))
    assert len(pictures) == 12 and pictures.size == (6, 5) and pictures.notes == ()
    batches = list(pictures.batches(5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert all(batch.dtype == np.uint8 and batch.flags.writeable for batch in batches)
    np.testing.assert_array_equal(np.concatenate(batches), IMAGES)
    np.testing.assert_array_equal(everything(pictures), IMAGES)  # and again
    chosen = [7, 2, 11, 2]
    np.testing.assert_array_equal(np.concatenate(list(pictures.batches(3, chosen))), IMAGES[chosen])
    assert list(pictures.batches(3, [])) == []
    few = np.array([11, 0], dtype=np.uint8)  # whose own products would overflow
    np.testing.assert_array_equal(next(pictures.batches(3, few)), IMAGES[few])
    np.testing.assert_array_equal(next(pictures.batches(3, [-1])), IMAGES[-1:])
    with pytest.raises(IndexError):
        next(pictures.batches(3, [12]))
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1, not 0"):
        next(pictures.batches(0))


def test_a_folder_is_read_with_its_folders_sorted_by_number(tmp_path):
    save_all(IMAGES[:2], tmp_path / "a2")
    save_all(IMAGES[2:4], tmp_path / "a10", ".bmp")
    save_all(IMAGES[4:6], tmp_path / "b", ".PPM")
    np.testing.assert_array_equal(everything(open_pictures(tmp_path)), IMAGES[:6])


def test_what_is_no_image_is_left_out(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    (folder / "notes.txt").write_text("hello")
    (folder / "._0.png").write_bytes(b"of a Mac")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "1.png").write_bytes(b"of a Mac")
    np.testing.assert_array_equal(everything(open_pictures(folder)), IMAGES)


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"gone\.png cannot be read"):
        open_pictures(folder)


def test_the_overview_of_kdiff_sample_is_left_out_and_said(tmp_path):
    folder = save_all(IMAGES, tmp_path / "samples")
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(folder / "grid.png")
    refused(folder, "several sizes", "grid.png")  # it may be anyone's
    (folder / "run.json").write_text("{}")
    pictures = open_pictures(folder)
    assert len(pictures) == 12 and "grid.png" in pictures.notes[0]


def test_images_are_read_as_they_are_asked_for(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    batches = open_pictures(folder).batches(4)
    next(batches)
    (folder / "11.png").unlink()
    next(batches)
    with pytest.raises(ValueError, match=r"11\.png cannot be read"):
        next(batches)


# Kinds of images


def test_greyscale_is_repeated_and_said(tmp_path):
    grey = IMAGES[..., 0]
    expected = grey[..., None].repeat(3, axis=3)
    save_all(grey, tmp_path / "g")
    np.save(tmp_path / "g3.npy", grey)
    np.save(tmp_path / "g4.npy", grey[..., None])
    for source in ("g", "g3.npy", "g4.npy"):
        pictures = open_pictures(tmp_path / source)
        np.testing.assert_array_equal(everything(pictures), expected)
        assert len(pictures.notes) == 1 and "greyscale" in pictures.notes[0]


def test_a_palette_gives_its_colours(tmp_path):
    flat = np.zeros((8, 8, 3), np.uint8)
    flat[:4] = (200, 10, 30)
    for i in range(2):
        Image.fromarray(flat).convert("P", palette=Image.Palette.ADAPTIVE).save(
            tmp_path / f"{i}.png"
        )
    np.testing.assert_array_equal(everything(open_pictures(tmp_path))[0], flat)


def test_jpeg_is_noted(tmp_path):
    pictures = open_pictures(save_all(IMAGES, tmp_path / "images", ".jpg"))
    assert len(pictures.notes) == 1 and "JPEG" in pictures.notes[0]
    assert everything(pictures).shape == IMAGES.shape


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


def test_the_global_generator_is_not_touched(tmp_path):
    before = np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(open_pictures(folder(tmp_path)))
    np.testing.assert_array_equal(before, np.random.get_state()[1])
