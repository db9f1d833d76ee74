"""Streaming statistics against numpy on the whole, and merging."""

import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest

from kdiff.eval.statistics.all_rows import AllRows
from kdiff.eval.statistics.grouped_moments import GROUPS, GroupedMoments, group_of
from kdiff.eval.statistics.moments import Moments

DIM = 12


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, DIM)) @ rng.standard_normal((DIM, DIM)) + 3).astype("f4")


def streamed(x, sizes):
    moments = Moments(DIM)
    for part in np.split(x, np.cumsum(sizes)):
        moments.update(part)
    return moments


@pytest.mark.parametrize("n", [2, DIM, DIM + 1, 1000])
@pytest.mark.parametrize("sizes", [[], [1], [1, 0, 300], [7] * 40])
def test_any_portions_give_the_mean_and_covariance(n, sizes):
    x = rows(n)
    moments = streamed(x, sizes)
    exact = x.astype("f8")
    assert moments.n == n
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.cov, np.cov(exact.T), rtol=1e-11, atol=1e-12)


def test_rows_are_kept_while_there_are_few():
    x = rows(DIM + 1)
    np.testing.assert_array_equal(streamed(x[:-1], [3]).rows, x[:-1].astype("f8"))
    assert streamed(x, [3]).rows is None


@pytest.mark.parametrize("counts", [[0, 5, 0, 995], [250] * 4, [1, 1, 1], [3, 4]])
def test_uneven_and_empty_parts_merge(counts):
    x = rows(sum(counts))
    parts = np.split(x, np.cumsum(counts)[:-1])
    merged = reduce(add, (streamed(part, []) for part in parts))
    together = streamed(x, [])
    assert merged.n == together.n
    assert (merged.rows is None) == (together.rows is None)
    np.testing.assert_allclose(merged.mean, together.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.cov, together.cov, rtol=1e-11, atol=1e-12)


def test_groups_do_not_depend_on_batches_or_processes():
    x = rows(400)
    whole, other, third = GroupedMoments(DIM), GroupedMoments(DIM), GroupedMoments(DIM)
    whole.update(x, range(400))
    for start in range(0, 400, 7):
        part = slice(start, start + 7)
        (other if start % 2 else third).update(x[part], range(400)[part])
    for i, (a, b) in enumerate(zip(whole.parts, (other + third).parts, strict=True)):
        own = x[group_of(range(400)) == i].astype("f8")
        np.testing.assert_allclose(a.mean, own.mean(0), rtol=1e-13)
        np.testing.assert_allclose(a.cov, b.cov, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(whole.whole.cov, np.cov(x.T.astype("f8")), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("period", [1, 2, 4, 10, 100, 144])
def test_groups_are_of_one_size_and_have_their_share_of_classes_in_turn(period):
    group, label = group_of(range(50_000)), np.arange(50_000) % period
    assert (np.bincount(group) == 50_000 / GROUPS).all()
    counts = np.array([np.bincount(group[label == c], minlength=GROUPS) for c in range(period)])
    chance = np.sqrt(50_000 / period * (1 / GROUPS) * (1 - 1 / GROUPS))
    assert abs(counts - 50_000 / period / GROUPS).max() < 4 * chance


@pytest.mark.parametrize("limit", [0, 2**28])
def test_kept_rows_come_back_in_order_from_memory_or_disk(limit, monkeypatch):
    monkeypatch.setattr("kdiff.eval.statistics.all_rows.LIMIT", limit)
    x, order = rows(100), np.random.default_rng(1).permutation(100)
    first, second = AllRows(100, DIM), AllRows(100, DIM)
    first.update(x[order[:30]], order[:30])
    with pytest.raises(ValueError, match="70 of 100 images are missing"):
        _ = first.rows
    second.update(x[order[30:]], order[30:])
    second = pickle.loads(pickle.dumps(second))  # as between processes
    np.testing.assert_array_equal((first + second).rows, x)


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match=r"must be \[n, 12\], not \[3, 4\]"):
        Moments(DIM).update(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="not finite"):
        Moments(DIM).update(np.full((3, DIM), np.nan))
    with pytest.raises(ValueError, match="at least two images, not 1"):
        _ = streamed(rows(1), []).cov
    with pytest.raises(ValueError, match="12 and 3 dimensions"):
        Moments(DIM) + Moments(3)
