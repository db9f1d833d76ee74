"""Precision, recall, density and coverage against brute force, torch-fidelity and expectations."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from kdiff.eval.metrics import neighbours
from kdiff.eval.metrics.density_coverage import density_coverage
from kdiff.eval.metrics.precision_recall import precision_recall

DIM = 8


def rows(n: int, seed: int, shift: float = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)) + shift


def brute_force(reference: np.ndarray, features: np.ndarray, k: int) -> tuple[float, ...]:
    """precision, recall, density, coverage, from whole matrices of distances."""
    radius, own_radius = (np.sort(cdist(a, a), axis=1)[:, k] for a in (reference, features))
    distances = cdist(reference, features)
    inside = distances <= radius[:, None]
    return (
        inside.any(0).mean(),
        (distances <= own_radius).any(1).mean(),
        inside.sum() / (k * len(features)),
        inside.any(1).mean(),
    )


@pytest.fixture(params=[7, 64, 1024])
def block(request, monkeypatch) -> int:
    monkeypatch.setattr(neighbours, "BLOCK", request.param)
    return request.param


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0, 0.5, 1.5])
def test_it_is_brute_force_in_any_blocks(block, k, shift):
    reference, features = rows(90, 0), rows(71, 1, shift)
    precision, recall, density, coverage = brute_force(reference, features, k)
    assert precision_recall(reference, features, k=k) == pytest.approx((precision, recall))
    assert density_coverage(reference, features, k=k) == pytest.approx((density, coverage))


@pytest.mark.parametrize("save_cpu_ram", [False, True])
def test_it_is_that_of_torch_fidelity(save_cpu_ram):
    metric = pytest.importorskip("torch_fidelity.metric_prc")
    reference, features = rows(400, 0), rows(300, 1, 0.7)
    expected = metric.prc_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        prc_neighborhood=3,
        prc_batch_size=100,
        save_cpu_ram=save_cpu_ram,
        verbose=False,
    )
    ours = precision_recall(reference, features)
    assert ours.precision == pytest.approx(expected["precision"], abs=1e-6)
    assert ours.recall == pytest.approx(expected["recall"], abs=1e-6)
    assert 0.1 < ours.recall < 0.9 and ours.precision != ours.recall


def test_the_same_set(block):
    x = rows(100, 0)
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x).coverage == 1


def test_sets_far_apart(block):
    a, b = rows(100, 0), rows(100, 1, 100)
    assert precision_recall(a, b) == (0, 0)
    assert density_coverage(a, b) == (0, 0)


def test_one_good_picture_repeated_is_precise_and_covers_nothing_else(block):
    reference = rows(100, 0)
    features = np.repeat(reference[:1] + 1e-3, 50, axis=0)
    precision, recall = precision_recall(reference, features)
    assert (precision, recall) == (1, 0)
    density, coverage = density_coverage(reference, features)
    assert density == pytest.approx(5 * coverage * len(reference) / 25)  # all in the same balls
    assert coverage < 0.2


@pytest.mark.parametrize(("m", "n", "k"), [(60, 60, 5), (100, 40, 3), (40, 100, 5)])
def test_the_expectations_for_one_distribution(m, n, k):
    results = np.array(
        [density_coverage(rows(m, 2 * s), rows(n, 2 * s + 1), k=k) for s in range(400)]
    )
    i = np.arange(1, k + 1)
    expected = 1, 1 - np.prod((m - i) / (m + n - i))
    error = results.std(0) / np.sqrt(len(results))
    assert (abs(results.mean(0) - expected) < 4 * error).all()
    assert (error < 0.02).all()


def test_large_common_offsets_cost_no_digits():
    """The naive |x|^2 + |y|^2 - 2 x y loses all of them here, in float64 too."""
    reference, features = rows(90, 0), rows(71, 1, 0.5)
    far = 2.0**40
    snapped = [np.round(a * 64) / 64 for a in (reference, features)]
    moved = [a + far for a in snapped]
    assert precision_recall(*moved) == precision_recall(*snapped)
    assert density_coverage(*moved) == density_coverage(*snapped)


def test_rows_that_repeat_are_at_no_distance(block):
    """Balls of radius 0 hold their own row, whatever the rounding."""
    few = rows(4, 0)
    reference, features = np.vstack([rows(9, 1), *10 * [few]]), np.tile(few[:2], (11, 1))
    precision, recall, density, coverage = brute_force(reference, features, 5)
    assert precision_recall(reference, features, k=5) == pytest.approx((precision, recall))
    assert density_coverage(reference, features) == pytest.approx((density, coverage))


def test_float32_in_a_file(tmp_path, block):
    reference, features = rows(90, 0).astype(np.float32), rows(71, 1).astype(np.float32)
    mapped = np.memmap(tmp_path / "features", np.float32, "w+", shape=features.shape)
    mapped[:] = features
    expected = brute_force(reference.astype(float), features.astype(float), 3)
    assert precision_recall(reference, mapped) == pytest.approx(expected[:2])


def test_bad_input():
    with pytest.raises(ValueError, match="3 images do not have 3 neighbours"):
        precision_recall(rows(10, 0), rows(3, 1))
    with pytest.raises(ValueError, match="5 images do not have 5 neighbours"):
        density_coverage(rows(5, 0), rows(50, 1))
    with pytest.raises(ValueError, match="not \\[9, 8\\] and \\[9, 3\\]"):
        precision_recall(np.ones((9, 3)), rows(9, 1))
    with pytest.raises(ValueError, match="not finite"):
        density_coverage(rows(9, 0), np.full((9, DIM), np.inf))
