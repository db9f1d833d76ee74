"""CFG-Zero*, and tangential damping."""

import numpy as np
import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.guidance import guide
from two_answers import LABELS, SHAPE, SIGMAS, SPACES, from_space, inputs, to_space


def found_and_expected(guidance, sigma, space, formula):
    """`formula` is of one sample, of predictions as vectors in NumPy."""
    model, x, c, u = inputs(sigma)
    guided = guide(model, guidance, scale=2.5, space=space)
    found = guided(x, sigma, class_labels=LABELS)
    assert model.calls == [(6, sigma)] and guided.evaluations(sigma) == 2
    c, u = (to_space(space, x, sigma, d).flatten(1).numpy() for d in (c, u))
    samples = [formula(one, other) for one, other in zip(c, u, strict=True)]
    f = torch.from_numpy(np.stack(samples)).reshape(x.shape)
    return found, from_space(space, x, sigma, f)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_zero_star(sigma, space):
    """s is the least-squares solution of s u = c."""

    def formula(c, u):
        (s,), *_ = np.linalg.lstsq(u[:, None], c, rcond=None)
        return s * u + 2.5 * (c - s * u)

    torch.testing.assert_close(*found_and_expected("cfg_zero", sigma, space, formula))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_tangential(sigma, space):
    def formula(c, u):
        first = np.linalg.svd(np.stack([c, u]), full_matrices=False).Vh[0]
        kept = (u @ first) * first
        return kept + 2.5 * (c - kept)

    found, expected = found_and_expected("tcfg", sigma, space, formula)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_default_spaces_are_the_papers():
    model, x, *_ = inputs(0.7)
    for name, space in [("cfg_zero", "velocity"), ("tcfg", "noise")]:
        default, said = guide(model, name), guide(model, name, space=space)
        answers = [g(x, 0.7, class_labels=LABELS) for g in (default, said)]
        assert torch.equal(*answers)


@pytest.mark.parametrize("name", ["cfg_zero", "tcfg", "apg"])
def test_scale_1_has_the_bits_and_the_cost_of_the_model(name):
    model, x, *_ = inputs(0.7)
    guided = guide(model, name, scale=1.0)
    assert torch.equal(guided(x, 0.7, class_labels=LABELS), model(x, 0.7, LABELS))
    assert guided.evaluations(0.7) == 1


@pytest.mark.parametrize("name", ["cfg_zero", "tcfg"])
def test_predictions_of_zero(name):
    def model(x, sigma, class_labels):
        return x * torch.where(class_labels >= 0, 1.0, 0.5)[:, None]

    model.classes = "abc"
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, -1.0]], dtype=torch.float64)
    guided = guide(model, name, scale=3.0, space="denoised")
    found = guided(x, 1.0, class_labels=torch.tensor([0, 1]))
    expected = {"cfg_zero": x, "tcfg": 0.5 * x + 3 * 0.5 * x}[name]  # c along u is c itself
    torch.testing.assert_close(found, expected)


# --- zero-init ---


def test_the_first_steps_of_a_flow_leave_the_sample_where_it_is():
    """On the straight line z = x / (1 + sigma), with Euler: the paper's first 2 steps."""
    grid = [30.0, 8.0, 2.0, 0.5, 0.0]
    states = []
    found = kdiff.sample(
        ClassMixture(SHAPE),
        "euler",
        sigmas=grid,
        n=3,
        class_labels=LABELS,
        dtype=torch.float64,
        guide="cfg_zero:scale=2:zero_above=2",
        callback=states.append,
    )
    flow = [state.x / (1 + state.sigma) for state in states[:3]]
    torch.testing.assert_close(flow[1], flow[0])
    torch.testing.assert_close(flow[2], flow[0])
    assert [state.nfe for state in states] == [0, 0, 2, 4, 4]
    rest = kdiff.plan(sampler="euler", sigmas=grid[2:])
    noise = kdiff.Noise([0, 1, 2], SHAPE, torch.float64)
    guided = guide(ClassMixture(SHAPE), "cfg_zero:scale=2")
    *_, last = kdiff.drive(guided, rest, flow[0] * 3, noise, class_labels=LABELS)
    torch.testing.assert_close(found, last.x)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_zero_is_in_the_space_of_the_predictions(space, scale):
    model, x, *_ = inputs(3.0)
    guided = guide(model, "cfg_zero", zero_above=2.9, scale=scale, space=space)
    found = guided(x, 3.0, class_labels=LABELS)
    torch.testing.assert_close(found, from_space(space, x, 3.0, torch.zeros_like(x)))
    assert model.calls == [] and guided.evaluations(3.0) == 0
    assert guided.evaluations(2.9) == (1 if scale == 1 else 2)


def test_a_budget_counts_what_zero_init_saves():
    guided = guide(ClassMixture(SHAPE), "cfg_zero:scale=2:zero_above=40")
    plan = kdiff.plan(guided, "euler", nfe=8)
    assert sum(map(guided.evaluations, plan.levels)) <= 8
