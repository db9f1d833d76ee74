"""Augmentation: what is done to the images is what the labels say."""

import numpy as np
import torch
from scipy import ndimage

import augment


def picture(n, size=32):
    """Smooth waves, which interpolation and mirrored borders hardly harm, `[n, 1, size, size]`."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (0.5 * torch.sin(x / 5 + 1) * torch.cos(y / 7)).expand(n, 1, size, size)


def test_an_image_is_flipped_half_the_time_and_its_label_says_so():
    torch.manual_seed(0)
    images = picture(400)
    changed, labels = augment.augment(images, probability=0.0)
    flipped = labels[:, 0] == 1
    assert 150 < flipped.sum() < 250 and not labels[:, 1:].any()
    torch.testing.assert_close(changed[flipped], images[flipped].flip(3), rtol=0, atol=0)
    torch.testing.assert_close(changed[~flipped], images[~flipped], rtol=0, atol=0)


def test_the_labels_say_what_was_done():
    """Against scipy, which samples the picture where the labels say."""
    torch.manual_seed(1)
    images = picture(24)
    changed, labels = augment.augment(images, probability=1.0)
    for image, result, label in zip(images, changed, labels.double().numpy(), strict=True):
        flip_x, flip_y, scale, cos, sin, along, across, *shift = label
        turn = np.array([[cos + 1, sin], [-sin, cos + 1]])
        strength, axis = np.hypot(along, across), np.arctan2(across, along) / 2
        c, s = np.cos(axis), np.sin(axis)
        frame = np.array([[c, -s], [s, c]])
        stretch = frame @ np.diag([2 ** (0.2 * strength), 2 ** (-0.2 * strength)]) @ frame.T
        mirror = np.diag([1 - 2 * flip_x, 1 - 2 * flip_y])
        matrix = mirror @ turn @ stretch * 2 ** (0.2 * scale)
        centre = (np.array(image.shape[1:]) - 1) / 2
        pixels = np.stack(np.meshgrid(*[np.arange(32.0)] * 2, indexing="xy"))  # x, y
        moved = pixels.reshape(2, -1) - centre[:, None] - 32 * 0.125 * np.array(shift)[:, None]
        x, y = np.linalg.inv(matrix) @ moved + centre[:, None]
        inside = (x > 1) & (x < 30) & (y > 1) & (y < 30)
        expected = ndimage.map_coordinates(image[0].double().numpy(), [y, x], order=3)
        error = np.abs(result[0].numpy().reshape(-1) - expected)[inside]
        assert inside.sum() > 100 and error.max() < 0.01
