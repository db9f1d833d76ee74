"""Noise as a pure function of seed and interval."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import kdiff
from kdiff.noise import LEVELS

KINDS = ("initial", "white", "brownian")
SHAPE = (2, 3)


def draw(kind: str, seeds=range(3), s=7.0, t=2.5, shape=SHAPE, dtype=torch.float32) -> torch.Tensor:
    noise = kdiff.Noise(seeds, shape, dtype)
    return noise.initial() if kind == "initial" else getattr(noise, kind)(s, t)


def many(kind: str, s=7.0, t=2.5, seed=0) -> np.ndarray:
    """50,000 numbers."""
    return draw(kind, [seed], s, t, (50_000,))[0].double().numpy()


def correlation_is_zero(a: np.ndarray, b: np.ndarray) -> bool:
    """Within 4.5 standard errors of a correlation of independent normals: 7e-6 fail by chance."""
    return abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(len(a))


# --- pure ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_has_its_noise_in_any_batch(kind):
    seeds = [5, 0, 2**64 - 1, 17, 2**32]
    together = draw(kind, seeds)
    assert together.shape == (5, *SHAPE)
    for i, seed in enumerate(seeds):
        assert torch.equal(together[i : i + 1], draw(kind, [seed]))
    assert torch.equal(together.flip(0), draw(kind, seeds[::-1]))
    assert len(torch.unique(together)) == together.numel()


INTERVALS = [(80, 7.0), (7.0, 2.5), (2.5, 2.4), (2.4, 1.0), (1.0, 0.01), (80, 0.01), (0.01, 0.0)]


@pytest.mark.parametrize("kind", ["white", "brownian"])
def test_the_order_of_draws_does_not_count(kind):
    fresh = {i: draw(kind, [3], *i) for i in INTERVALS}
    for order in (INTERVALS, INTERVALS[::-1], INTERVALS[::2] * 2):
        noise = kdiff.Noise([3], SHAPE)
        noise.initial()
        for i in order:
            assert torch.equal(getattr(noise, kind)(*i), fresh[i])
            assert torch.equal(getattr(noise, kind)(*i), fresh[i])


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_untouched(kind):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = draw(kind)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(9)
    np.random.seed(9)
    assert torch.equal(draw(kind), first)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_has_the_same_draws(kind):
    single = draw(kind)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        other = draw(kind, dtype=dtype)
        assert other.dtype is dtype
        assert torch.equal(other, single.to(dtype))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, math.nan])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="a seed must be a whole number"):
        kdiff.Noise([0, seed], SHAPE)


GOLDEN = {
    "initial": [[0.05991103500, 0.01555963419], [-0.07654727995, 0.34252315760]],
    "white": [[-2.4105095863, -1.6784163713], [0.5484175086, 1.0794767141]],
    "brownian": [[-0.4626300633, -1.308147788], [1.5591118336, -1.568508029]],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_draws_stay_what_they_are(kind):
    """A seed must give the same picture in the next version: this is what version 0.1 draws."""
    np.testing.assert_allclose(draw(kind, [0, 12345], shape=(2,)), GOLDEN[kind], rtol=1e-6)


def test_few_numbers_start_no_thread(monkeypatch):
    monkeypatch.setattr(kdiff.normals, "ThreadPoolExecutor", None)
    for kind in KINDS:
        draw(kind)


# --- standard normal ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [(7.0, 2.5), (80.0, 1e-3), (1.01, 1.0), (0.02, 0.0)])
def test_standard_normal(kind, interval):
    """Moments within 4.5 standard errors, Kolmogorov-Smirnov at the level of 1e-4; seeds fixed."""
    x = many(kind, *interval)
    n = len(x)
    assert abs(x.mean()) < 4.5 / math.sqrt(n)
    assert abs(x.var() - 1) < 4.5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4.5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4.5 * math.sqrt(96 / n)
    assert kstest(x, "norm").pvalue > 1e-4


def test_seeds_and_streams_are_independent():
    draws = [many("initial"), many("initial", seed=1), many("initial", seed=2**63)]
    draws += [many("white"), many("white", 7.0, 2.4), many("white", 2.5, 7.0), many("brownian")]
    draws += [many("brownian", seed=1)]
    for a, b in itertools.combinations(draws, 2):
        assert correlation_is_zero(a, b)


def test_across_seeds_too():
    """The normals of 2,000 seeds at one place."""
    x = draw("initial", range(2000), shape=(2,)).double().numpy()
    assert kstest(x[:, 0], "norm").pvalue > 1e-4
    assert correlation_is_zero(x[:, 0], x[:, 1])
    assert correlation_is_zero(x[1:, 0], x[:-1, 0])


def test_white_noise_is_keyed_by_both_ends():
    keys = [(7.0, 2.5), (7.0, 2.4), (6.9, 2.5), (2.5, 7.0), (7.0, math.nextafter(2.5, 3))]
    for a, b in itertools.combinations(keys, 2):
        assert not torch.isclose(draw("white", [0], *a), draw("white", [0], *b)).any()


# --- Brownian ---


def increment(s: float, t: float, **kwargs) -> np.ndarray:
    """W(t) - W(s) from its documented normalisation; time is -log2 sigma."""
    return many("brownian", s, t, **kwargs) * math.sqrt(abs(math.log2(s / t)))


DYADIC = [2.0 ** (i / 8) for i in (50, 45, 40, 36, 9, 8, 7, 3, 1, 0, -1, -20, -24)]


def test_increments_add_up_on_dyadic_points():
    """Where the path has a node, its variance is exact; what remains is float32."""
    whole = increment(DYADIC[0], DYADIC[-1])
    parts = sum(increment(s, t) for s, t in itertools.pairwise(DYADIC))
    np.testing.assert_allclose(parts, whole, atol=2e-5)


@pytest.mark.parametrize("refinement", [2, 7, 100])
def test_increments_add_up_over_refined_grids(refinement):
    """On any grid. Between nodes, which are 2^-LEVELS apart, the path is linear, so the variance of
    an increment is short of its length by up to half of that, 2^-LEVELS / 4 at each end."""
    grid = np.geomspace(31.7, 0.013, refinement + 1)
    whole = increment(grid[0], grid[-1])
    parts = sum(increment(s, t) for s, t in itertools.pairwise(map(float, grid)))
    length = math.log2(grid[0] / grid[-1]) / refinement
    lost = math.sqrt(length) - math.sqrt(length - 2.0**-LEVELS / 2)
    assert np.abs(parts - whole).max() < 6 * lost * math.sqrt(refinement) + 2e-5


def test_the_path_backwards_is_the_same_path():
    np.testing.assert_array_equal(many("brownian", 2.5, 7.0), -many("brownian", 7.0, 2.5))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((8.0, 4.0), (4.0, 2.0)),  # whole octaves
        ((7.0, 6.0), (6.0, 5.0)),  # in one
        ((7.0, 6.9), (4.2, 4.1)),
        ((80.0, 3.3), (3.3, 0.002)),
        ((1.001, 1.0), (1.0, 0.999)),  # across the end of an octave
        ((3.0, 2.99), (2.99, 2.95)),  # near the resolution
        ((1e6, 80.0), (0.002, 0.0)),
    ],
)
def test_disjoint_intervals_are_independent(one, other):
    """Up to the part of the path that they may share near a node: see the test of refined grids."""
    lengths = [math.log2(s / t) if t else 40 for s, t in (one, other)]
    shared = 2.0**-LEVELS / 4 / math.sqrt(math.prod(lengths))
    found = np.corrcoef(many("brownian", *one), many("brownian", *other))[0, 1]
    assert abs(found) < shared + 4.5 / math.sqrt(50_000)


@pytest.mark.parametrize(
    ("one", "other"), [((16.0, 1.0), (8.0, 2.0)), ((7.0, 2.0), (3.0, 0.5)), ((5.0, 4.0), (4.5, 1))]
)
def test_overlapping_intervals_share_their_overlap(one, other):
    (a, b), (c, d) = [[-math.log2(s) for s in i] for i in (one, other)]
    expected = (min(b, d) - max(a, c)) / math.sqrt((b - a) * (d - c))
    found = np.corrcoef(many("brownian", *one), many("brownian", *other))[0, 1]
    assert found == pytest.approx(expected, abs=4.5 * (1 - expected**2) / math.sqrt(50_000))


@pytest.mark.parametrize(
    ("s", "t"),
    [
        (1.0, math.nextafter(1.0, 0)),
        (math.nextafter(3.0, 4), 3.0),
        (1e6, 999_999.999),
        (1e6, 0.0),
        (1e6, 1e-12),
        (1e-12, 0.0),
        (1e300, 1e-300),
    ],
)
def test_any_interval_is_standard_normal(s, t):
    x = draw("brownian", [0], s, t, (2000,))[0].double().numpy()
    assert kstest(x, "norm").pvalue > 1e-4


@pytest.mark.parametrize("sigma", [0.0, 1.0, 7.3])
def test_an_empty_interval_is_refused(sigma):
    with pytest.raises(ValueError, match="equal noise levels"):
        draw("brownian", [0], sigma, sigma)


def test_the_work_does_not_recurse():
    """torchsde's tree fails on some intervals with a RecursionError."""
    noise = kdiff.Noise([0], (1,))
    limit, depth = sys.getrecursionlimit(), len(list(frames()))
    sys.setrecursionlimit(depth + 25)
    try:
        for s, t in [(1e6, 0.0), (1.0, math.nextafter(1.0, 0)), (14.614643, 0.029167)]:
            noise.brownian(s, t)
    finally:
        sys.setrecursionlimit(limit)


def frames():
    frame = sys._getframe()
    while frame := frame.f_back:
        yield frame
