"""The streaming Inception Score against torch-fidelity's, the definition, and known values."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdiff.eval.statistics.inception_score_sums import CONVENTIONS, InceptionScoreSums

CLASSES = 12


def logits(n: int, seed: int = 0) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal((n, CLASSES))


def score(rows: np.ndarray, convention: str = "torch-fidelity", batch: int = 10**6):
    stream = InceptionScoreSums(len(rows), rows.shape[1], convention)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        stream.update(part, range(start, start + len(part)))
    return stream


def by_definition(parts: list[np.ndarray]) -> np.ndarray:
    scores = []
    for part in parts:
        p = softmax(part, axis=1)
        scores.append(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))
    return np.array(scores)


@pytest.mark.parametrize("n", [10, 103, 2000])
def test_it_is_that_of_torch_fidelity(n):
    metric = pytest.importorskip("torch_fidelity.metric_isc")
    expected = metric.isc_features_to_metric(torch.from_numpy(logits(n)))
    ours = score(logits(n))
    assert ours.mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert ours.std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [10, 103, 2000])
def test_openai_cuts_ten_consecutive_splits(n):
    rows = logits(n)
    scores = by_definition([rows[i * n // 10 : (i + 1) * n // 10] for i in range(10)])
    ours = score(rows, "openai")
    assert ours.mean == pytest.approx(scores.mean(), rel=1e-12)
    assert ours.std == pytest.approx(scores.std(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [7, 5000, 12_000])
def test_guided_diffusion_cuts_after_5000(n):
    rows = logits(n)
    scores = by_definition([rows[i : i + 5000] for i in range(0, n, 5000)])
    ours = score(rows, "guided-diffusion")
    assert ours.mean == pytest.approx(scores.mean(), rel=1e-12)
    assert ours.std is None


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_known_values(convention):
    n = 50 * CLASSES
    uniform = score(np.full((n, CLASSES), 7.5), convention)
    np.testing.assert_allclose(uniform.scores, 1, rtol=1e-12)
    # One-hot, and every split balanced: its images go round the classes.
    stream = InceptionScoreSums(n, CLASSES, convention)
    split = CONVENTIONS[convention].split_of(n)
    sizes = np.bincount(split)
    assert (sizes % CLASSES == 0).all()
    rows = np.empty((n, CLASSES))
    for s, size in enumerate(sizes):
        rows[split == s] = 1000 * np.eye(CLASSES)[np.arange(size) % CLASSES]
    stream.update(rows, range(n))
    np.testing.assert_allclose(stream.scores, CLASSES, rtol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_a_stream_is_the_batch(convention, batch):
    rows = logits(300)
    whole, stream = score(rows, convention), score(rows, convention, batch)
    np.testing.assert_allclose(stream.scores, whole.scores, rtol=1e-13)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_uneven_and_empty_parts_add_up(convention):
    rows = logits(300)
    owner = np.random.default_rng(1).integers(0, 3, len(rows))
    total = InceptionScoreSums(300, CLASSES, convention)  # a process without images
    for rank in range(3):
        part = InceptionScoreSums(300, CLASSES, convention)
        mine = np.flatnonzero(owner == rank)
        part.update(rows[mine], mine)
        total = total + part
    np.testing.assert_allclose(total.scores, score(rows, convention).scores, rtol=1e-13)


def test_logits_of_any_size():
    rows = logits(100)
    shifted = score(rows + 1e4 * np.arange(100)[:, None])
    np.testing.assert_allclose(shifted.scores, score(rows).scores, rtol=1e-8)


def test_no_global_generator_is_touched():
    before = np.random.get_state()[1].copy()
    score(logits(20))
    assert (np.random.get_state()[1] == before).all()


def test_bad_input():
    with pytest.raises(ValueError, match="needs 10 images, not 9"):
        InceptionScoreSums(9, CLASSES)
    with pytest.raises(ValueError, match="no convention 'google'"):
        InceptionScoreSums(20, CLASSES, "google")
    with pytest.raises(ValueError, match="n must be a whole number, at least 1, not 0"):
        InceptionScoreSums(0, CLASSES, "guided-diffusion")
    stream = InceptionScoreSums(20, CLASSES)
    with pytest.raises(ValueError, match="must be \\[2, 12\\], not \\[3, 12\\]"):
        stream.update(logits(3), [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        stream.update(np.full((1, CLASSES), math.nan), [0])
    with pytest.raises(ValueError, match="from 0 to 19"):
        stream.update(logits(1), [-1])
    with pytest.raises(ValueError, match="came twice"):
        stream.update(logits(2), [3, 3])
    with pytest.raises(ValueError, match="20 of 20 images are missing"):
        _ = stream.mean
    stream.update(logits(2), [3, 4])
    with pytest.raises(ValueError, match="came twice"):
        stream.update(logits(2), [4, 5])
    with pytest.raises(ValueError, match="came twice"):
        _ = stream + stream
    with pytest.raises(ValueError, match="cannot add"):
        _ = stream + InceptionScoreSums(20, CLASSES, "openai")
