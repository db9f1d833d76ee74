"""The resize matrices against clean-fid's, pytorch-fid's and torch-fidelity's own code."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x as tensorflow_1,
)

from kdiff.eval.features.resize import MODES, SIZE, resize

SIZES = [(32, 32), (64, 48), (299, 299), (512, 333), (1, 5)]


def images(height, width, n=2):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def one_by_one(batch, mode):
    resizer = build_resizer(mode)
    return np.stack([resizer(image) for image in batch]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("size", SIZES)
def test_clean_is_pillows_bicubic(size):
    batch = images(*size)
    ours = resize(torch.from_numpy(batch), "clean").numpy() * 128 + 128
    np.testing.assert_allclose(ours, one_by_one(batch, "clean"), atol=4e-3)  # of 255


@pytest.mark.parametrize("size", SIZES)
def test_legacy_pytorch_is_interpolate(size):
    batch = images(*size)
    ours = (resize(torch.from_numpy(batch), "legacy_pytorch").numpy() + 1) * 127.5
    # interpolate keeps its coordinates in float32
    np.testing.assert_allclose(ours, one_by_one(batch, "legacy_pytorch"), atol=1e-2)


@pytest.mark.parametrize("size", SIZES)
def test_legacy_tensorflow_is_tensorflow_1(size):
    batch = torch.from_numpy(images(*size))
    ours = resize(batch, "legacy_tensorflow") * 128 + 128
    theirs = tensorflow_1(batch.permute(0, 3, 1, 2).float(), size=(SIZE, SIZE), align_corners=False)
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_all_grey_levels_survive_unchanged_size(mode):
    levels = torch.arange(256, dtype=torch.uint8).repeat(SIZE * SIZE * 3 // 256 + 1)
    batch = levels[: SIZE * SIZE * 3].reshape(1, SIZE, SIZE, 3)
    scale, shift = (127.5, 127.5) if mode == "legacy_pytorch" else (128, 128)
    back = resize(batch, mode) * scale + shift
    assert torch.equal(back.round().to(torch.uint8).permute(0, 2, 3, 1), batch)


def test_the_modes_differ():
    batch = torch.from_numpy(images(32, 32))
    a, b, c = (resize(batch, mode) for mode in MODES)
    assert min((a - b).abs().mean(), (b - c).abs().mean(), (a - c).abs().mean()) > 0.01
