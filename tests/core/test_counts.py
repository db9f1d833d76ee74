"""Numbers in Python's, NumPy's and torch's ways."""

import fractions
import math

import numpy as np
import pytest
import torch

from kdiff.counts import real_number, seed_number, sizes, whole_number

FIVES = [5, np.int64(5), np.uint8(5), np.array(5), torch.tensor(5)]
FLAGS = [True, False, np.bool_(True), np.array(True), torch.tensor(True)]
NO_COUNTS = [1.5, 2.0, "5", b"5", None, np.float32(3), torch.tensor(3.0), [5], np.array([5])]


@pytest.mark.parametrize("value", FIVES, ids=repr)
def test_a_whole_number_of_any_library_is_an_int(value):
    number = whole_number("steps", value, 1)
    assert (type(number), number) == (int, 5)


@pytest.mark.parametrize("value", [*FLAGS, *NO_COUNTS, torch.tensor([5]), math.nan], ids=repr)
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError) as error:
        whole_number("steps", value, 1)
    assert str(error.value) == f"steps must be a whole number, at least 1, not {value!r}"


def test_the_bound_that_does_not_hold_is_named():
    with pytest.raises(ValueError, match=r"n must be a whole number, at least 2, not 1$"):
        whole_number("n", 1, 2, 9)
    with pytest.raises(ValueError, match=r"n must be a whole number, at most 1,000, not 1001$"):
        whole_number("n", 1001, 2, 1000)
    with pytest.raises(ValueError, match=r"at most 9, not one of thousands of digits$"):
        whole_number("n", 10**5000, 2, 9)


@pytest.mark.parametrize(
    "value", [*FIVES, 5.0, np.float32(5), torch.tensor(5.0), fractions.Fraction(5)], ids=repr
)
def test_a_number_of_any_library_is_a_float(value):
    number = real_number("rho", value)
    assert (type(number), number) == (float, 5.0)


def test_infinity_is_a_number_and_its_own_negative():
    assert real_number("S_tmax", np.float32(math.inf)) == math.inf
    assert real_number("x", -math.inf) == -math.inf


@pytest.mark.parametrize(
    "value", [*FLAGS, "5", b"5", None, math.nan, np.float32("nan"), 1j, [5.0], torch.ones(1)]
)
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"rho must be a number, not "):
        real_number("rho", value)


def test_a_number_beyond_floats():
    with pytest.raises(ValueError, match=r"rho must be a number, not 1000"):
        real_number("rho", 10**400)


@pytest.mark.parametrize("seed", [0, np.uint64(2**64 - 1), torch.tensor(3)])
def test_a_seed(seed):
    assert seed_number(seed) == int(seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "1", None])
def test_no_seed(seed):
    with pytest.raises(ValueError) as error:
        seed_number(seed)
    assert str(error.value) == f"a seed must be a whole number from 0 to 2^64 - 1, not {seed!r}"


@pytest.mark.parametrize(
    "shape",
    [(3, 8, 8), [3, 8, 8], torch.Size([3, 8, 8]), np.array([3, 8, 8]), np.ones((3, 8, 8)).shape],
)
def test_a_shape(shape):
    assert sizes(shape) == (3, 8, 8)
    assert all(type(size) is int for size in sizes(shape))


@pytest.mark.parametrize("shape", ["3,8,8", 32, None, (3, 8.0, 8), (3, 0, 8), (True, 8), (-3,)])
def test_no_shape(shape):
    with pytest.raises(ValueError, match=r"shape must be whole numbers \(channels, height, width"):
        sizes(shape)
