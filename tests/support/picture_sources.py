"""Images in folders and archives, how tests read them, and how they are refused."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.images.pictures import open_pictures

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


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


def folder(tmp_path):
    return save_all(IMAGES, tmp_path / "images")
