"""The converged solution, against exact ones, and the distance to it."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import kdiff
from kdiff.eval.sweep import converged_solution as converged
from kdiff.eval.sweep.converged_solution import Course, cached, course, rmse, solve

MEAN = torch.tensor([0.5, -1.0, 2.0])
GAUSSIAN = kdiff.analytic.gaussian(MEAN)
MIXTURE = kdiff.analytic.GaussianMixture(
    torch.tensor([[-1.0, 0.5], [0.3, -0.2], [1.0, 1.0]]), torch.tensor([0.1, 0.3, 0.2])
)
WHOLE = Course(80.0, 0.002, "zero")


def start(model, seeds, sigma=80.0):
    return sigma * kdiff.Noise(seeds, model.shape, torch.float64).initial()


def ode(model, x, s, t):
    """The ODE dx/dsigma = (x - D) / sigma by Dormand and Prince's order 8, in log sigma."""

    def slope(log_sigma, flat):
        y = torch.from_numpy(flat).view_as(x)
        return (y - model(y, float(np.exp(log_sigma)))).flatten().numpy()

    ends = (np.log(s), np.log(t))
    found = solve_ivp(slope, ends, x.flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(found.y[:, -1]).view_as(x)


# --- the solution ---


def test_it_is_the_exact_one_of_a_gaussian():
    seeds = range(3, 8)
    at_end = kdiff.analytic.gaussian_solution(MEAN.double(), 0.5, start(GAUSSIAN, seeds), 80, 0.002)
    ends = {"sigma_min": at_end, "zero": GAUSSIAN(at_end, 0.002)}
    for final, expected in ends.items():
        found = solve(GAUSSIAN, Course(80.0, 0.002, final), seeds, batch=2)
        true_error = rmse(found.x, expected.numpy()).mean()
        assert true_error < found.error < 1e-4
        assert true_error < 1e-5


def test_it_is_that_of_another_solver_on_a_mixture():
    at_end = ode(MIXTURE, start(MIXTURE, range(6), 20.0), 20.0, 0.01)
    found = solve(MIXTURE, Course(20.0, 0.01, "sigma_min"), range(6), steps=256)
    true_error = rmse(found.x, at_end.numpy()).mean()
    assert true_error < found.error < 1e-4


def test_its_error_is_that_against_half_the_steps():
    fine, coarse = (solve(MIXTURE, WHOLE, range(4), steps=n) for n in (64, 32))
    assert fine.error == rmse(fine.x, coarse.x).mean()


# A start near where two components part is the last to converge: Euler needs the more steps.
@pytest.mark.parametrize(
    ("sampler", "order", "first"), [("euler", 1, 256), ("heun", 2, 64), ("dpmpp_3m", 3, 64)]
)
def test_the_distance_to_it_falls_with_the_power_of_the_order(sampler, order, first):
    target = solve(MIXTURE, Course(20.0, 0.05, "sigma_min"), range(16), steps=1024)
    errors = []
    for steps in (first, 2 * first):
        x = kdiff.sample(
            MIXTURE,
            sampler,
            n=16,
            steps=steps,
            sigma_max=20.0,
            sigma_min=0.05,
            final="sigma_min",
            dtype=torch.float64,
        )
        errors.append(rmse(x.numpy(), target.x).mean())
    assert target.error < 1e-2 * errors[1]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def test_the_target_of_a_plan_depends_on_where_it_starts_and_how_it_ends():
    def of(**arguments):
        return course(GAUSSIAN, kdiff.plan(GAUSSIAN, **arguments))

    assert of(steps=5) == of(steps=1) == of(steps=9, schedule="vp") == WHOLE
    assert of(steps=5, sigma_min=0.1) == WHOLE  # what it leaves out is its error
    assert of(steps=5, sigma_max=40) == Course(40.0, 0.002, "zero")
    assert of(steps=5, sigma_min=0.1, final="sigma_min") == Course(80.0, 0.1, "sigma_min")


def test_labels_go_with_their_seeds():
    def denoise(x, sigma, class_labels):
        return class_labels.to(x)[:, None].expand_as(x) + 0 * x

    denoise.shape = (2,)
    found = solve(denoise, WHOLE, range(5), [4, 2, 0, 1, 3], batch=2)
    assert np.array_equal(found.x, np.repeat([[4.0], [2], [0], [1], [3]], 2, axis=1))


# --- the distance ---


def test_rmse_is_over_all_numbers_of_a_sample():
    x = np.zeros((2, 3, 4, 4))
    y = x.copy()
    y[0, 1] = 0.3  # a third of the numbers
    y[1] = -0.5
    assert rmse(x, y) == pytest.approx([0.3 / 3**0.5, 0.5])
    tiny = np.full((1, 3), 1e-4, dtype=np.float32)
    assert rmse(1 + tiny.astype(np.float64), np.ones((1, 3))) == pytest.approx([1e-4])


# --- the file ---


@pytest.fixture
def counted(monkeypatch):
    calls = []
    monkeypatch.setattr(converged, "STEPS", 4)
    monkeypatch.setattr(converged, "solve", lambda *a, **k: calls.append(a) or solve(*a, **k))
    return calls


def test_it_is_computed_once(tmp_path, counted):
    folder = tmp_path / "converged"
    first, second = (cached(folder, {"model": "a"}, GAUSSIAN, WHOLE, range(3)) for _ in range(2))
    assert len(counted) == 1 and len(list(folder.iterdir())) == 1
    assert np.array_equal(first.x, second.x) and first.error == second.error


@pytest.mark.parametrize(
    "other",
    [
        ({"model": "b"}, WHOLE, range(3), None),
        ({"model": "a", "dtype": "float16"}, WHOLE, range(3), None),
        ({"model": "a"}, Course(40.0, 0.002, "zero"), range(3), None),
        ({"model": "a"}, Course(80.0, 0.001, "zero"), range(3), None),
        ({"model": "a"}, Course(80.0, 0.002, "sigma_min"), range(3), None),
        ({"model": "a"}, WHOLE, range(1, 4), None),
        ({"model": "a"}, WHOLE, range(3), [0, 1, 2]),
    ],
)
def test_whatever_determines_it_makes_another_file(tmp_path, counted, other):
    determines, where, seeds, labels = other
    cached(tmp_path, {"model": "a"}, GAUSSIAN, WHOLE, range(3))
    cached(tmp_path, determines, GAUSSIAN, where, seeds, labels)
    assert len(counted) == 2 == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no"])
def test_a_damaged_file_is_made_anew(tmp_path, counted, damage):
    whole = cached(tmp_path, {}, GAUSSIAN, WHOLE, range(3))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = cached(tmp_path, {}, GAUSSIAN, WHOLE, range(3))
    assert np.array_equal(again.x, whole.x) and len(counted) == 2
    assert np.array_equal(cached(tmp_path, {}, GAUSSIAN, WHOLE, range(3)).x, whole.x)
    assert len(counted) == 2


def test_a_model_that_breaks_down_leaves_no_file(tmp_path):
    with pytest.raises(kdiff.NonFiniteError):
        cached(tmp_path, {}, kdiff.analytic.gaussian(MEAN / 0), WHOLE, range(3))
    assert not list(tmp_path.iterdir())
