"""Folders as people have them: every picture is evaluated, refused, or counted in a line."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from kdiff.eval import evaluate
from kdiff.eval.features import FeatureNetwork, Features
from kdiff.eval.images import folder as image_folder
from kdiff.eval.images.pictures import open_pictures

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def save_all(images, folder, suffix=".png", **settings):
    folder.mkdir(exist_ok=True, parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}", **settings)
    return folder


def everything(folder):
    return np.concatenate(list(open_pictures(folder).batches(5)))


def refused(path, *parts):
    with pytest.raises(ValueError) as caught:
        everything(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for part in parts:
        assert part in message


# Links


def test_links_to_class_folders_and_to_files_are_followed(tmp_path):
    save_all(IMAGES[:5], tmp_path / "data" / "a")
    save_all(IMAGES[5:10], tmp_path / "elsewhere")
    save_all(IMAGES[10:], tmp_path / "alone")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c.png").symlink_to(tmp_path / "alone" / "0.png")
    (tmp_path / "data" / "d.png").symlink_to("../alone/1.png")
    (tmp_path / "linked").symlink_to("data")
    for path in (tmp_path / "data", tmp_path / "linked"):
        np.testing.assert_array_equal(everything(path), IMAGES)
        assert open_pictures(path).notes == ()


def test_loops_end_and_what_is_reached_twice_counts_once(tmp_path):
    save_all(IMAGES[:5], tmp_path / "a")
    save_all(IMAGES[5:], tmp_path / "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(".")
    (tmp_path / "again").symlink_to("a")
    (tmp_path / "again.png").symlink_to("b/0.png")
    np.testing.assert_array_equal(everything(tmp_path), IMAGES)
    (note,) = open_pictures(tmp_path).notes
    assert note.startswith("links to what is read already are left out: 4;")


def test_a_hard_link_is_a_file_of_its_own(tmp_path):
    folder = save_all(IMAGES[:2], tmp_path / "a")
    os.link(folder / "0.png", folder / "2.png")
    assert len(open_pictures(folder)) == 3


@pytest.mark.parametrize("name", ["gone.png", "a class", "notes.txt"])
def test_a_link_that_leads_nowhere_is_refused(name, tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    (folder / name).symlink_to("nowhere")
    refused(folder, f"{name} cannot be read: the link leads nowhere")
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    refused(folder, f"{name} cannot be read: the link leads nowhere")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    save_all(IMAGES[:5], tmp_path / "a")
    save_all(IMAGES[5:], tmp_path / "b")
    scan = os.scandir

    def guarded(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(image_folder.os, "scandir", guarded)
    refused(tmp_path, "the folder b cannot be read: Permission denied")


# Kinds of files


def test_a_pipe_is_no_picture(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    os.mkfifo(folder / "run.json")  # which opening would wait for
    np.testing.assert_array_equal(everything(folder), IMAGES)
    assert "left out as pipes, sockets or devices: 1 (run.json)" in open_pictures(folder).notes
    os.mkfifo(folder / "c.png")
    refused(folder, "c.png cannot be read: it is a pipe, a socket or a device")
    refused(folder / "c.png", "c.png")


LOSSLESS = [".gif", ".pgm", ".PNM", ".tga", ".qoi", ".jfif", ".jpe", ".bmp", ".pcx", ".sgi"]
LOSSLESS += [".jp2", ".webp", ".avif", ".apng", ".dib"]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_whatever_pillow_reads_is_evaluated(suffix, tmp_path):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without it")
    folder = save_all(np.zeros((2, 16, 16), np.uint8), tmp_path / "images")
    grey = Image.fromarray(np.full((16, 16), 200, np.uint8))
    (grey if suffix != ".qoi" else grey.convert("RGB")).save(folder / f"2{suffix}")
    assert abs(everything(folder)[2].astype(int) - 200).max() <= 2


def test_what_is_left_out_is_counted(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    for name in ("README.md", "labels.csv", "a", "clip.mp4", "9.png.txt"):
        (folder / name).write_text("hello")
    for name in (".DS_Store", "._1.png", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("of an operating system")
    save_all(IMAGES[:2], folder / ".cache")
    (folder / ".half.png").write_text("of a writer that was stopped")
    np.testing.assert_array_equal(everything(folder), IMAGES)
    hidden, others = open_pictures(folder).notes
    assert hidden == "left out as hidden: 2 (.cache, .half.png)"
    assert others == "left out as no pictures: 5 (9.png.txt, README.md, a, ..)"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    assert open_pictures(tmp_path / "x.zip").notes == (
        "left out as hidden: 3 (.cache/0.png, .cache/1.png, .half.png)",
        others,
    )


def test_only_what_is_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    refused(tmp_path, "has no images (left out as no pictures: 1 (a.txt))")


@pytest.mark.parametrize("suffix", [".heic", ".SVG", ".jxl", ".eps", ".dng"])
def test_pictures_that_cannot_be_read_are_refused(suffix, tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    (folder / f"x{suffix}").write_bytes(b"a picture")
    refused(folder, f"has pictures that cannot be read (x{suffix}): convert them to PNG")


def test_a_postscript_file_starts_no_program_whatever_its_name(tmp_path, monkeypatch):
    folder = save_all(IMAGES, tmp_path / "images")
    box = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\nshowpage\n"
    (folder / "3.png").write_bytes(box)
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    refused(folder, "3.png cannot be read")


def test_the_notes_reach_figures_of_images_and_of_references(tmp_path):
    made, real = save_all(IMAGES, tmp_path / "made"), save_all(IMAGES[::-1], tmp_path / "real")
    (made / "a.txt").write_text("hello")
    (real / "b.txt").write_text("hello")
    network = FeatureNetwork("toy", None, "", lambda x: Features(x[:, 0, 0].astype(np.float32)))
    with pytest.warns(UserWarning) as told:
        evaluate(made, real, "fid", network=network)
    notes = [str(one.message) for one in told]
    assert "left out as no pictures: 1 (a.txt)" in notes
    assert any(note.endswith("real: left out as no pictures: 1 (b.txt)") for note in notes)


def test_names_that_are_no_text_do_not_break_the_line(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    (folder / os.fsdecode(b"\xff.txt")).write_text("hello")
    (folder / "a\nb.txt").write_text("hello")
    (note,) = open_pictures(folder).notes
    assert note.isascii() and note.isprintable()


# Several pictures in a file, and pictures that are to be turned


def frames(n=3):
    return [Image.fromarray(np.full((6, 5, 3), 60 * i, np.uint8)) for i in range(n)]


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".png", ".webp", ".avif"])
def test_several_frames_or_pages_are_refused(suffix, tmp_path):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without it")
    folder = save_all(IMAGES, tmp_path / "images")
    first, *rest = frames()
    first.save(folder / f"many{suffix}", save_all=True, append_images=rest)
    refused(folder, f"many{suffix} has 3 pictures (frames, pages or layers)")


def test_sizes_of_an_icon_are_refused(tmp_path):
    folder = save_all(IMAGES, tmp_path / "images")
    Image.new("RGB", (64, 64)).save(folder / "x.ico", sizes=[(16, 16), (32, 32)])
    refused(folder, "x.ico has 2 pictures")


def test_of_a_cameras_mpo_the_first_is_taken_and_said(tmp_path):
    folder = save_all(np.zeros((2, 6, 5, 3), np.uint8), tmp_path / "images", ".jpg")
    first, second, _ = frames()
    first.save(folder / "2.jpg", format="MPO", save_all=True, append_images=[second])
    pictures = open_pictures(folder)
    assert len(pictures) == 3 and not everything(folder).any()
    assert "1 files of several pictures (MPO, of cameras), of which the first is taken" in (
        pictures.notes
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_turns_nothing_and_is_said(suffix, tmp_path):
    folder = save_all(np.zeros((2, 6, 5, 3), np.uint8), tmp_path / "images")
    image = Image.fromarray(np.repeat(np.uint8([[0], [0], [0], [255], [255], [255]]), 5, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.convert("RGB").save(folder / f"2{suffix}", exif=exif)
    picture = everything(folder)[2]
    assert picture[0].max() < 20 and picture[-1].min() > 235
    note = "1 images that EXIF says to turn, taken as they are stored"
    assert note in open_pictures(folder).notes
