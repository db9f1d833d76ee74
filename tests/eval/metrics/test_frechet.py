"""The Frechet distance against closed forms, scipy's matrix square root, and simulation."""

import numpy as np
import pytest
import scipy.linalg

from kdiff.eval.metrics.frechet import Gaussian, expected_distance, frechet_distance, noise_floor
from kdiff.eval.statistics.moments import Moments

DIM = 24


def moments(rows: np.ndarray) -> Moments:
    m = Moments(rows.shape[1])
    m.update(rows)
    return m


def gaussian(rows: np.ndarray) -> Gaussian:
    return Gaussian(rows.mean(0), np.cov(rows.T), len(rows))


def rows(n: int, seed: int, dim: int = DIM) -> np.ndarray:
    """Correlated, with a spectrum over three decades."""
    rng = np.random.default_rng(seed)
    scale = np.logspace(0.5, -1, dim)
    return rng.standard_normal((n, dim)) * scale @ rotation(dim, seed) + rng.standard_normal(dim)


def rotation(dim: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed + 1000).standard_normal((dim, dim)))[0]


def with_sqrtm(a: Gaussian, b: Gaussian) -> float:
    root = scipy.linalg.sqrtm(a.cov @ b.cov)
    return ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov - 2 * root.real)


def trace(*statistics: Gaussian) -> float:
    return sum(s.cov.trace() for s in statistics)


# --- closed forms ---


@pytest.mark.parametrize("condition", [1, 1e3, 1e6])
def test_covariances_that_commute(condition):
    rng = np.random.default_rng(0)
    Q = rotation(DIM, 0)
    a, b = (rng.permutation(np.geomspace(1, 1 / condition, DIM)) for _ in range(2))
    shift = rng.standard_normal(DIM)
    exact = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    distance = frechet_distance(
        Gaussian(np.zeros(DIM), (Q * a) @ Q.T), Gaussian(shift, (Q * b) @ Q.T)
    )
    assert distance == pytest.approx(exact, rel=1e-9)


def test_one_dimension():
    a, b = Gaussian(np.array([1.0]), np.array([[4.0]])), Gaussian(np.zeros(1), np.array([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx(1 + (3 - 2) ** 2, rel=1e-14)


@pytest.mark.parametrize("n", [10, DIM, DIM + 1, 500])
def test_a_shift_gives_its_square(n):
    x, shift = rows(n, 0), np.linspace(-1, 2, DIM)
    assert frechet_distance(gaussian(x), moments(x + shift)) == pytest.approx(
        (shift**2).sum(), abs=1e-9 * trace(gaussian(x))
    )


@pytest.mark.parametrize("n", [2, 10, DIM, DIM + 1, 500])
def test_a_set_is_at_no_distance_from_itself(n):
    x = rows(n, 0)
    assert 0 <= frechet_distance(gaussian(x), moments(x)) < 1e-9 * trace(gaussian(x))
    assert 0 <= frechet_distance(gaussian(x), gaussian(x)) < 1e-9 * trace(gaussian(x))


# --- against scipy, and against itself ---


@pytest.mark.parametrize("n", [200, 2000])
def test_it_is_the_matrix_square_root(n):
    a, b = rows(1000, 1), rows(n, 2)
    expected = with_sqrtm(gaussian(a), gaussian(b))
    assert frechet_distance(gaussian(a), moments(b)) == pytest.approx(expected, rel=1e-10)


def test_it_is_symmetric():
    a, b = rows(300, 1), rows(400, 2)
    forth = frechet_distance(gaussian(a), moments(b))
    assert frechet_distance(gaussian(b), moments(a)) == pytest.approx(forth, rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, DIM - 1, DIM])
@pytest.mark.parametrize("reference_n", [8, DIM, 500])
def test_low_rank_is_the_full_form(n, reference_n):
    reference, x = gaussian(rows(reference_n, 1)), rows(n, 2)
    assert moments(x).rows is not None
    low = frechet_distance(reference, moments(x))
    # 1e-7: the full form roots the rounding of those eigenvalues that should be zero.
    assert low == pytest.approx(frechet_distance(reference, gaussian(x)), rel=1e-7)
    singular = np.linalg.svd((x - x.mean(0)) @ reference.factor, compute_uv=False)
    shift = ((x.mean(0) - reference.mean) ** 2).sum()
    exact = shift + trace(reference, gaussian(x)) - 2 * singular.sum() / np.sqrt(n - 1)
    assert low == pytest.approx(exact, rel=1e-10)


def test_the_order_of_rows_does_not_matter():
    reference, x = gaussian(rows(300, 1)), rows(400, 2)
    shuffled = np.random.default_rng(0).permutation(x)
    assert frechet_distance(reference, moments(shuffled)) == pytest.approx(
        frechet_distance(reference, moments(x)), rel=1e-12
    )


def test_turning_both_changes_nothing():
    a, b, Q = rows(300, 1), rows(400, 2), rotation(DIM, 5)
    assert frechet_distance(gaussian(a @ Q), moments(b @ Q)) == pytest.approx(
        frechet_distance(gaussian(a), moments(b)), rel=1e-11
    )


# --- a singular reference ---


@pytest.mark.parametrize("flat", ["directions", "few rows", "constant"])
def test_a_singular_reference(flat):
    a, b = rows(300, 1), rows(400, 2)
    if flat == "directions":
        a[:, 3], a[:, 5] = 0.25, a[:, 4]
    elif flat == "few rows":
        a = a[:7]
    else:
        a[:] = a[0]
    reference = gaussian(a)
    factor = reference.factor
    assert factor.shape[1] == np.linalg.matrix_rank(reference.cov)
    np.testing.assert_allclose(factor @ factor.T, reference.cov, atol=1e-13)
    # tr (S_r S)^(1/2) by the roots of both: the singular values of S_r^(1/2) S^(1/2)
    halves = [
        vectors * np.sqrt(values.clip(0))
        for values, vectors in map(np.linalg.eigh, (reference.cov, gaussian(b).cov))
    ]
    root = np.linalg.svd(halves[0].T @ halves[1], compute_uv=False).sum()
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum() + trace(reference, gaussian(b)) - 2 * root
    assert frechet_distance(reference, moments(b)) == pytest.approx(exact, rel=1e-8)


def test_singular_to_rounding_although_cholesky_ends_well():
    cov = np.array([[1, 1], [1, 1 + 2.0**-52]])
    np.linalg.cholesky(cov)
    assert Gaussian(np.zeros(2), cov).factor.shape == (2, 1)


def test_a_reference_rounded_to_float32_may_have_slightly_negative_eigenvalues():
    x = rows(DIM // 2, 1)
    rounded = Gaussian(x.mean(0).astype(np.float32), np.cov(x.T).astype(np.float32))
    assert np.linalg.eigvalsh(rounded.cov)[0] < 0
    other = moments(rows(500, 2))
    assert frechet_distance(rounded, other) == pytest.approx(
        frechet_distance(gaussian(x), other), rel=1e-4
    )


def test_the_factor_is_found_once():
    reference = gaussian(rows(100, 0))
    assert reference.factor is reference.factor


# --- few samples ---


@pytest.mark.parametrize("n", [2, 10, DIM, DIM + 1, 100, 1000])
@pytest.mark.parametrize("spectrum", ["steep", "flat"])
def test_the_noise_floor_is_the_average_of_perfect_samples(n, spectrum):
    flat = Gaussian(np.ones(DIM), np.eye(DIM))
    reference = flat if spectrum == "flat" else gaussian(rows(5000, 0))
    L, rng = np.linalg.cholesky(reference.cov), np.random.default_rng(1)
    direct = [
        frechet_distance(reference, moments(rng.standard_normal((n, DIM)) @ L.T + reference.mean))
        for _ in range(400)
    ]
    floor = expected_distance(reference, n, draws=400)
    # Of the difference of the averages; the floor's, without the mean's part, vary less.
    error = np.std(direct) * np.sqrt(2 / 400)
    assert abs(floor - np.mean(direct)) < 4 * error
    assert error < 0.05 * floor


@pytest.mark.parametrize(("n", "of_reference"), [(1000, 1000), (100, 2000), (2000, 100)])
def test_the_noise_floor_knows_that_the_reference_is_of_samples_too(n, of_reference):
    L = np.linalg.cholesky(gaussian(rows(5000, 0)).cov)
    rng = np.random.default_rng(1)

    def draw(size):
        return moments(rng.standard_normal((size, DIM)) @ L.T)

    made = [draw(of_reference) for _ in range(40)]
    references = [Gaussian(one.mean, one.cov, one.n) for one in made]
    direct = [frechet_distance(reference, draw(n)) for reference in references]
    floors = [noise_floor(reference, n) for reference in references]
    assert np.mean(floors) == pytest.approx(np.mean(direct), rel=0.1)


def test_the_bias_falls_as_one_over_n():
    reference = gaussian(rows(5000, 0))
    times_n = [n * expected_distance(reference, n, draws=100) for n in (500, 2000, 8000)]
    assert max(times_n) / min(times_n) < 1.03


def test_the_noise_floor_of_a_singular_reference():
    full = gaussian(rows(5000, 0, dim=4))
    basis = rotation(DIM, 0)[:4]
    embedded = Gaussian(full.mean @ basis, basis.T @ full.cov @ basis)
    # The same spectrum and the same draws: only directions without variance are added.
    for n in (3, 50):
        a, b = (expected_distance(g, n, draws=200) for g in (full, embedded))
        assert a == pytest.approx(b, rel=0.1)


def test_no_global_generator_is_touched():
    before = np.random.get_state()[1].copy()
    expected_distance(gaussian(rows(100, 0)), 10)
    assert (np.random.get_state()[1] == before).all()


# --- bad input ---


@pytest.mark.parametrize(
    ("mean", "cov", "says"),
    [
        (np.zeros(3), np.eye(2), "not \\[3\\] and \\[2, 2\\]"),
        (np.zeros((3, 1)), np.eye(3), "not \\[3, 1\\] and"),
        (np.zeros(2), np.array([[1, np.nan], [np.nan, 1]]), "not finite"),
        (np.array([0, np.inf]), np.eye(2), "not finite"),
        (np.zeros(2), np.array([[1, 0.5], [0.4, 1]]), "not symmetric"),
    ],
)
def test_what_is_no_gaussian(mean, cov, says):
    with pytest.raises(ValueError, match=says):
        Gaussian(mean, cov)


def test_what_has_no_distance():
    reference = gaussian(rows(100, 0))
    with pytest.raises(ValueError, match="2 dimensions, the reference 24"):
        frechet_distance(reference, moments(np.ones((5, 2))))
    with pytest.raises(ValueError, match="at least two images, not 1"):
        frechet_distance(reference, moments(rows(1, 0)))
    with pytest.raises(ValueError, match="at least two images, not 1"):
        expected_distance(reference, 1)
    with pytest.raises(ValueError, match="negative eigenvalues"):
        frechet_distance(Gaussian(np.zeros(2), np.diag([1.0, -0.5])), moments(np.eye(2)))
