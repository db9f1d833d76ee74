"""Sources of images: what they give."""

import warnings

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.images.pictures import open_pictures
from picture_sources import IMAGES, everything, folder, refused, save_all, zipped

# Every source gives the same arrays


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
    few = np.array([11, 0], dtype=np.uint8)  # products in uint8 would overflow
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


def test_the_global_generator_is_not_touched(tmp_path):
    before = np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(open_pictures(folder(tmp_path)))
    np.testing.assert_array_equal(before, np.random.get_state()[1])
