"""KID against torch-fidelity's and clean-fid's own functions, and by hand."""

import itertools

import numpy as np
import pytest
import torch

from kdiff.eval.metrics.kid import kernel_distance, mmd2

DIM = 16


def rows(n: int, seed: int, shift: float = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)) + shift


def test_by_hand():
    # Two dimensions: kernels of (0, 0) are 1, of (2, 0) with itself 27, of (0, 2) with itself 27.
    x, y = np.array([[0.0, 0], [2, 0]]), np.array([[0.0, 2], [2, 2]])
    # Pairs within x: 1, 1; within y: (4 / 2 + 1)^3 twice; between: 1, 1, 1, (4 / 2 + 1)^3.
    assert mmd2(x, y) == pytest.approx((1 + 1) / 2 + (27 + 27) / 2 - 2 * (1 + 1 + 1 + 27) / 4)


def test_pair_by_pair():
    x, y = rows(6, 0), rows(6, 1, 0.5)

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / DIM + 1) ** 3

    pairs = list(itertools.permutations(range(6), 2))
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / 30
    expected -= 2 * sum(k(a, b) for a in x for b in y) / 36
    assert mmd2(x, y) == pytest.approx(expected, rel=1e-12)


def test_it_is_that_of_torch_fidelity():
    metric = pytest.importorskip("torch_fidelity.metric_kid")
    features, reference = rows(300, 0), rows(500, 1, 0.1)
    expected = metric.kid_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        kid_subsets=20,
        kid_subset_size=100,
        verbose=False,
    )
    ours = kernel_distance(reference, features, subsets=20, size=100)
    assert ours.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)
    assert ours.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-10)


def test_it_is_that_of_clean_fid_on_the_same_subsets(monkeypatch):
    cleanfid = pytest.importorskip("cleanfid.fid")
    features, reference = rows(80, 0), rows(500, 1, 0.1)
    monkeypatch.setattr(np.random, "choice", np.random.RandomState(7).choice)
    expected = cleanfid.kernel_distance(reference, features, num_subsets=20)
    assert kernel_distance(reference, features, subsets=20, seed=7).mean == pytest.approx(
        expected, rel=1e-10
    )


def test_it_is_unbiased():
    """Zero on average for two draws from one distribution, from 20 rows as from many."""
    distances = [
        kernel_distance(rows(20, 2 * seed), rows(20, 2 * seed + 1), subsets=1).mean
        for seed in range(2000)
    ]
    assert abs(np.mean(distances)) < 4 * np.std(distances) / np.sqrt(2000)
    assert np.std(distances) > 0
    shifted = kernel_distance(rows(400, 0), rows(400, 1, 0.5), subsets=10)
    assert shifted.mean > 10 * np.std(distances) / np.sqrt(20)


def test_float32_and_files_change_nothing(tmp_path):
    features, reference = (rows(60, seed).astype(np.float32) for seed in (0, 1))
    mapped = np.memmap(tmp_path / "features", np.float32, "w+", shape=features.shape)
    mapped[:] = features
    expected = kernel_distance(reference.astype(np.float64), features.astype(np.float64))
    assert kernel_distance(reference, mapped) == expected


def test_no_global_generator_is_touched():
    before = np.random.get_state()[1].copy()
    kernel_distance(rows(20, 0), rows(20, 1), subsets=2)
    assert (np.random.get_state()[1] == before).all()


def test_bad_input():
    with pytest.raises(ValueError, match="not \\[5, 16\\] and \\[5, 3\\]"):
        kernel_distance(np.ones((5, 3)), rows(5, 0))
    with pytest.raises(ValueError, match="at least two images"):
        kernel_distance(rows(5, 0), rows(1, 0))
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(rows(5, 0), np.full((5, DIM), np.nan))
