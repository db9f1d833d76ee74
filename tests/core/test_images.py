import numpy as np
import torch

from kdiff.files import whole_file
from kdiff.images import grid, to_uint8


def test_all_256_levels_survive():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    as_floats = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert np.array_equal(to_uint8(as_floats), levels)


def test_values_are_rounded_and_clamped():
    x = torch.tensor([-9.0, -1.0, 0.49 / 127.5, 0.51 / 127.5, 1.0, 9.0]).reshape(1, 1, 1, 6)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 128, 255, 255]
    assert to_uint8(torch.tensor([[[[0.6 / 127.5 - 1]]]])).item() == 1  # truncation would give 0


def test_grid_places_images_in_rows():
    images = np.stack([np.full((2, 3, 3), i, dtype=np.uint8) for i in range(5)])
    sheet = grid(images, columns=3, gap=1)
    assert sheet.shape == (2 * 3 + 1, 3 * 4 + 1, 3)
    assert sheet[1, 1, 0] == 0 and sheet[1, 9, 0] == 2 and sheet[4, 5, 0] == 4
    assert sheet[4, 9, 0] == 255 and sheet[0, 0, 0] == 255


def test_whole_file_keeps_the_old_one_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    try:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
