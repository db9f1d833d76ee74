"""Frequency-decoupled guidance, against pyramids of c and of u built otherwise, and diffusers."""

import re

import numpy as np
import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import cfg, fdg, guide

LABELS = torch.tensor([0, 2])


def pictures(size):
    model = ClassMixture((2, *size))
    x = 3 * torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(3)).double()
    return model, x, model(x, 0.7, LABELS), model(x, 0.7, torch.full((2,), -1))


def blur_matrix(n):
    """(1, 4, 6, 4, 1) / 16 along one side of n pixels, mirrored at its ends."""
    matrix = np.zeros((n, n))
    for i in range(n):
        for offset, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
            j = abs(i + offset)
            matrix[i, j if j < n else 2 * (n - 1) - j] += weight / 16
    return matrix


def resize_matrix(n, m):
    """From n pixels to m, bilinear between the centres of pixels."""
    matrix = np.zeros((m, n))
    for i in range(m):
        at = min(max((i + 0.5) * n / m - 0.5, 0), n - 1)
        low = min(int(at), n - 1)
        high = min(low + 1, n - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, high] += at - low
    return matrix


def along_both(matrices, picture):
    return np.einsum("ih,jw,nchw->ncij", *matrices, picture)


def pyramid(picture, levels):
    """The levels from fine to coarse, and what each coarse one is expanded with."""
    found, expand = [], []
    for _ in range(levels - 1):
        sides = picture.shape[2:]
        down = [resize_matrix(n, n // 2) @ blur_matrix(n) for n in sides]
        up = [blur_matrix(n) @ resize_matrix(n // 2, n) for n in sides]
        coarse = along_both(down, picture)
        found.append(picture - along_both(up, coarse))
        expand.append(up)
        picture = coarse
    return [*found, picture], expand


@pytest.mark.parametrize("scales", [[2.0], [10.0, 5.0], [3.0, 1.0, -0.5]], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (6, 16)], ids=str)
def test_the_formula(size, scales):
    """Algorithm 2 of the paper: guidance on each level of two pyramids, then put together."""
    model, x, c, u = pictures(size)
    (of_c, expand), (of_u, _) = (pyramid(d.numpy(), len(scales)) for d in (c, u))
    each = [b + w * (a - b) for w, a, b in zip(scales, of_c, of_u, strict=True)]
    expected = each.pop()
    for level, up in zip(reversed(each), reversed(expand), strict=True):
        expected = level + along_both(up, expected)
    found = fdg(model, "+".join(map(str, scales)))(x, 0.7, class_labels=LABELS)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 0), (-1 / 0.7, 1 / 0.7), (-1 / 0.7 - 1, 1 / 0.7)],
    ids=["denoised", "noise", "velocity"],
)
def test_diffusers(a, b):
    """On predictions a D + b x. The result is the same in each space."""
    pytest.importorskip("kornia")
    guiders = pytest.importorskip("diffusers.guiders")
    model, x, c, u = pictures((8, 16))
    guider = guiders.FrequencyDecoupledGuidance([10.0, 5.0, 2.0])
    guided = guider.forward(a * c + b * x, a * u + b * x).pred
    found = fdg(model, "10+5+2")(x, 0.7, class_labels=LABELS)
    torch.testing.assert_close(found, (guided - b * x) / a, rtol=1e-5, atol=1e-5)


def test_equal_scales_are_classifier_free_guidance():
    model, x, _, _ = pictures((8, 8))
    found, expected = (
        guided(x, 0.7, class_labels=LABELS) for guided in (fdg(model, "3+3+3"), cfg(model, 3))
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scales", ["", "10,5", "ten+five", "10+", "10+nan", "inf+1"])
def test_scales_are_numbers_joined_by_plus(scales):
    message = f"scales must be numbers from fine to coarse, such as 10+5, not {scales!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        fdg(ClassMixture(), scales)


@pytest.mark.parametrize(
    ("shape", "scales", "least"),
    [((3,), "2", 1), ((2, 4, 4), "1+2+3", 6), ((2, 8, 2), "10+5", 3)],
)
def test_samples_without_that_many_levels_are_refused(shape, scales, least):
    message = f"fdg needs pictures of at least {least} x {least} pixels"
    with pytest.raises(ValueError, match=message):
        guide(ClassMixture(shape), "fdg", scales=scales)
    model = ClassMixture(shape)
    model.shape = None
    with pytest.raises(ValueError, match=message):
        kdiff.sample(model, shape=shape, class_labels=[1], guide=f"fdg:scales={scales}", steps=1)
