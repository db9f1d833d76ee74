"""FID-infinity and the errors, on Gaussians whose distance is known."""

import numpy as np
import pytest

from kdiff.eval.metrics.fid import group_error
from kdiff.eval.metrics.fid_inf import extrapolate
from kdiff.eval.metrics.frechet import Gaussian, expected_distance, frechet_distance
from kdiff.eval.statistics.grouped_moments import GroupedMoments
from kdiff.eval.statistics.moments import Moments

DIM, GROUPS = 8, 5
REFERENCE = Gaussian(np.zeros(DIM), np.diag(np.linspace(0.5, 2, DIM)))


def groups(n: int, seed: int, scale: float = 1, count: int = GROUPS) -> list[Moments]:
    """n draws in all from N(0, scale^2 cov)."""
    rng = np.random.default_rng(seed)
    draws = scale * rng.standard_normal((n, DIM)) * np.sqrt(np.diag(REFERENCE.cov))
    parts = [Moments(DIM) for _ in range(count)]
    for i, part in enumerate(parts):
        part.update(draws[i::count])
    return parts


def whole(parts: list[Moments]) -> float:
    return frechet_distance(REFERENCE, sum(parts[1:], parts[0]))


@pytest.mark.parametrize("scale", [1, 1.2])
def test_it_takes_the_bias_out(scale):
    exact = (scale - 1) ** 2 * REFERENCE.cov.trace()
    trials = [groups(250, seed, scale) for seed in range(150)]
    plain = np.array([whole(parts) for parts in trials]) - exact
    infinite = np.array([extrapolate(REFERENCE, parts).value for parts in trials]) - exact
    bias = expected_distance(REFERENCE, 250, draws=200)
    assert plain.mean() > 0.8 * bias
    chance = infinite.std() / np.sqrt(len(infinite))
    assert abs(infinite.mean()) < 3 * chance < 0.2 * plain.mean()


@pytest.mark.parametrize("scale", [1, 1.2])
def test_it_takes_the_bias_out_where_groups_have_few_more_images_than_dimensions(scale):
    """Over 1 / n the intercept would be off by a tenth of the bias and more."""
    exact = (scale - 1) ** 2 * REFERENCE.cov.trace()
    trials = [groups(4 * (DIM + 1), seed, scale, 4) for seed in range(400)]
    bias = np.mean([whole(parts) for parts in trials]) - exact
    infinite = np.array([extrapolate(REFERENCE, parts).value for parts in trials]) - exact
    assert abs(infinite.mean()) < 0.05 * bias


@pytest.mark.parametrize("scale", [1.2, 1.5])
def test_its_error_is_that_of_repetition(scale):
    results = [extrapolate(REFERENCE, groups(500, seed, scale)) for seed in range(150)]
    values, errors = np.array(results).T
    assert 1 / 1.3 < np.sqrt((errors**2).mean()) / values.std() < 1.3


@pytest.mark.parametrize("scale", [0.7, 1.2, 1.5])
@pytest.mark.parametrize("count", [4, 5])
def test_the_group_error_is_that_of_repetition(scale, count):
    trials = [groups(1000, seed, scale, count) for seed in range(200)]
    true = np.std([whole(parts) for parts in trials])
    estimates = np.array([group_error(REFERENCE, parts) for parts in trials])
    assert 1 / 1.2 < np.sqrt((estimates**2).mean()) / true < 1.2


def test_images_with_their_classes_in_turn():
    """Classes differ, and their distance must not pass for an error or for a bias: with all even
    classes in two groups it would be six times each."""
    centres = np.random.default_rng(0).standard_normal((10, DIM))
    exact = Gaussian(centres.mean(0), np.eye(DIM) + np.cov(centres.T, bias=True))
    target = Gaussian(exact.mean, 2 * exact.cov)
    trials, n = [], 1000
    for seed in range(150):
        trials.append(GroupedMoments(DIM))
        noise = np.random.default_rng(seed).standard_normal((n, DIM))
        trials[-1].update(centres[np.arange(n) % 10] + noise, range(n))
    true = np.std([frechet_distance(target, trial.whole) for trial in trials])
    estimates = np.array([group_error(target, trial.parts) for trial in trials])
    assert 1 / 1.5 < np.sqrt((estimates**2).mean()) / true < 1.5
    infinite = np.mean([extrapolate(target, trial.parts).value for trial in trials])
    assert abs(infinite - frechet_distance(target, exact)) < 0.5 * true


def test_at_the_noise_floor_the_group_error_is_too_large_and_no_more_than_root_groups_fold():
    trials = [groups(1000, seed) for seed in range(200)]
    true = np.std([whole(parts) for parts in trials])
    estimates = np.array([group_error(REFERENCE, parts) for parts in trials])
    assert 1.5 < np.sqrt((estimates**2).mean()) / true < 1.1 * np.sqrt(GROUPS)


def test_groups_that_are_alike_have_no_error():
    """The same rows five times: what is left of the union's bias is n / (n - 1) in its covariance,
    and the extrapolation takes that out."""
    part = groups(500, 0, 1.3, 1)[0]
    value, error = extrapolate(REFERENCE, [part] * 5)
    limit = frechet_distance(REFERENCE, Gaussian(part.mean, part.cov * 499 / 500))
    plain = whole([part] * 5)
    assert error < 1e-12
    assert abs(value - limit) < 0.01 * (plain - limit)


def test_the_order_of_groups_does_not_matter():
    parts = groups(300, 0, 1.2)
    forth, back = (extrapolate(REFERENCE, p) for p in (parts, parts[::-1]))
    assert forth == pytest.approx(back, rel=1e-9)


def test_too_few_groups():
    parts = groups(100, 0, count=2)
    with pytest.raises(ValueError, match="at least three groups"):
        extrapolate(REFERENCE, parts)
    with pytest.raises(ValueError, match="at least two groups"):
        group_error(REFERENCE, parts[:1])
