"""What every registered statistic promises, and how references hold and save them."""

import pickle

import numpy as np
import pytest

from kdiff.eval import Gaussian, Reference, Statistic
from kdiff.eval.references import load_reference, save_reference
from kdiff.eval.statistics import STATISTICS

N, DIM = 60, 5


def rows():
    return np.random.default_rng(0).gamma(0.5, 0.8, (N, DIM)).astype(np.float32)


def collected(statistic, order):
    sums = statistic.start(N, DIM)
    for start in range(0, len(order), 7):
        part = order[start : start + 7]
        sums.update(rows()[part], part)
    return sums


def numbers(sums):
    """What is known of it, as one vector."""
    known = {
        "GroupedMoments": lambda: [f(part) for part in sums.parts for f in (mean_of, cov_of)],
        "Moments": lambda: [sums.mean, sums.cov],
        "AllRows": lambda: [sums.rows],
        "InceptionScoreSums": lambda: [sums.scores],
    }
    return np.concatenate([np.ravel(a) for a in known[type(sums).__name__]()])


def mean_of(moments):
    return moments.mean


def cov_of(moments):
    return moments.cov


@pytest.mark.parametrize("name", list(STATISTICS))
def test_portions_order_and_processes_do_not_matter(name):
    statistic = STATISTICS[name]
    assert statistic.name == name and statistic.takes in ("pool", "spatial", "logits")
    whole = numbers(collected(statistic, np.arange(N)))
    order = np.random.default_rng(1).permutation(N)
    parts = [collected(statistic, part) for part in (order[:22], order[22:])]
    there_and_back = pickle.loads(pickle.dumps(parts[1]))
    np.testing.assert_allclose(numbers(parts[0] + there_and_back), whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(numbers(collected(statistic, order)), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, s in STATISTICS.items() if s.prefix is not None])
def test_what_a_file_holds_comes_back_as_float32(name):
    statistic = STATISTICS[name]
    finished = statistic.finish(collected(statistic, np.arange(N)))
    again = statistic.load(finished.save(), finished.n)
    exact = rows().astype("f8")
    np.testing.assert_allclose(again.mean, exact.mean(0), rtol=1e-7)
    np.testing.assert_allclose(again.cov, np.cov(exact.T), rtol=1e-6)
    assert again.n == N and np.array_equal(again.mean, np.float32(again.mean))


class Largest:
    """The largest value of each dimension."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)

    def save(self):
        return {"values": self.values}


@pytest.fixture
def largest(monkeypatch):
    statistic = Statistic(
        *("largest", "pool", lambda n, dim: None),
        prefix="largest_",
        load=lambda arrays, n: Largest(arrays["values"]),
    )
    monkeypatch.setitem(STATISTICS, "largest", statistic)
    return statistic


def test_a_file_holds_other_peoples_statistics_too(largest, tmp_path):
    gaussian = Gaussian(np.zeros(2), np.eye(2), 9)
    plain = Reference(name="r", n=9, gaussian=gaussian)
    more = Reference(name="r", n=9, gaussian=gaussian, statistics={"largest": Largest([1, 2, 3])})
    save_reference(plain, tmp_path / "plain.safetensors")
    save_reference(more, tmp_path / "more.safetensors")
    found = load_reference(tmp_path / "more.safetensors")
    assert found.part(largest).values.tolist() == found.part("largest").values.tolist() == [1, 2, 3]
    assert found.sha256 == more.sha256 != plain.sha256
    assert load_reference(tmp_path / "plain.safetensors").sha256 == plain.sha256
    with pytest.raises(ValueError, match="reference r lacks a statistic"):
        load_reference(tmp_path / "plain.safetensors").part(largest)


def test_a_reference_is_made_of_keywords_as_of_statistics():
    gaussian, spatial = (Gaussian(np.zeros(d), np.eye(d)) for d in (2, 3))
    one = Reference(name="r", gaussian=gaussian, spatial=spatial)
    other = Reference(name="r", statistics={"gaussian": gaussian, "spatial_gaussian": spatial})
    assert one.statistics == other.statistics and one.sha256 == other.sha256
    assert one.spatial is one.spatial_gaussian is spatial
