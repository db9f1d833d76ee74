"""CFG++ as a guidance, against the paper's own steps written out, and where it is refused."""

import math
from itertools import pairwise

import pytest
import torch

import kdiff
from class_mixture import ClassMixture
from kdiff.editing import EDITS, edit
from kdiff.guidance import Step, cfg_pp
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY

LABELS = torch.tensor([0, 2])
NONE = torch.full((2,), -1)
GRID = [30.0, 7.0, 2.0, 0.6, 0.1, 0.0]
RUN = {"n": 2, "class_labels": LABELS, "dtype": torch.float64, "sigmas": GRID}


def both(x, sigma):
    return [ClassMixture()(x, sigma, labels) for labels in (LABELS, NONE)]


def in_the_papers_frame(x, scale):
    """DDIM with CFG++ on variance-preserving samples: the noise is mixed for the clean image, and
    the noise without the class is added back (algorithm 2)."""
    alpha_bars = [1 / (1 + sigma**2) for sigma in GRID]
    x = math.sqrt(alpha_bars[0]) * x
    for before, after in pairwise(alpha_bars):
        a, sigma = math.sqrt(before), math.sqrt(1 / before - 1)
        eps_c, eps_0 = ((x - a * d) / math.sqrt(1 - before) for d in both(x / a, sigma))
        eps = eps_0 + scale * (eps_c - eps_0)
        clean = (x - math.sqrt(1 - before) * eps) / a
        x = math.sqrt(after) * clean + math.sqrt(1 - after) * eps_0
    return x


@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_ancestral"])
def test_a_run_is_the_papers(sampler, scale):
    options = {} if sampler == "euler" else {"eta": 0}
    found = kdiff.sample(
        ClassMixture(), sampler, options=options, guide=f"cfg_pp:scale={scale}", **RUN
    )
    start = GRID[0] * kdiff.Noise([0, 1], (2, 4, 4), torch.float64).initial()
    torch.testing.assert_close(found, in_the_papers_frame(start, scale), rtol=1e-9, atol=1e-9)


def test_with_churn_a_step_begins_where_the_noise_has_raised_it():
    """x_t = D_lambda + t eps_u from s_hat = (1 + gamma) s, which may be above earlier levels."""
    grid = [2.0, 1.6, 0.7, 0.0]
    found = kdiff.sample(
        ClassMixture(),
        "euler",
        options={"S_churn": 1.5},
        guide="cfg_pp:scale=0.7",
        **{**RUN, "sigmas": grid},
    )
    noise, gamma = kdiff.Noise([0, 1], (2, 4, 4), torch.float64), math.sqrt(2) - 1
    x = grid[0] * noise.initial()
    for s, t in pairwise(grid):
        s_hat = s + gamma * s
        x = x + math.sqrt(s_hat**2 - s**2) * noise.white(s, s_hat)
        c, u = both(x, s_hat)
        x = u + 0.7 * (c - u) + t * (x - u) / s_hat
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_the_steps_of_lockstep_are_those_of_each_run():
    model = cfg_pp(ClassMixture(), 0.5)
    plans = [
        kdiff.plan(model, "euler", sigmas=sigmas) for sigmas in (GRID, [30.0, 1.0, 0.0], GRID[:3])
    ]
    cond = {"class_labels": LABELS}
    (together,) = lockstep(model, plans, [0, 1], dtype=torch.float64, cond=cond)
    for plan, outcome in zip(plans, together.outcomes, strict=True):
        alone = kdiff.sample(model, "euler", **{**RUN, "sigmas": plan.sigmas})
        assert torch.equal(outcome.x, alone)


def test_it_is_told_of_the_step_inside_another_guidance_too():
    """Around and inside it, what asks once more passes the step on: lambda mixes D_w."""
    x = torch.linspace(-4, 6, 64, dtype=torch.float64).reshape(2, 2, 4, 4)
    around = kdiff.guidance.cfg(cfg_pp(ClassMixture(), 0.5), 3.0)
    inside = cfg_pp(kdiff.guidance.cfg(ClassMixture(), 3.0), 0.5)
    c, u = both(x, 2.0)
    for model in (around, inside):  # each is u + 3 (0.5 / (1 - 0.6 / 2)) (c - u)
        found = model(x, 2.0, class_labels=LABELS, step=Step(2, 2.0, 0.6))
        torch.testing.assert_close(found, u + 1.5 / 0.7 * (c - u))
        assert model.evaluations(2.0) == 2  # u of u is u


def test_outside_a_run_nothing_tells_it_the_step():
    with pytest.raises(ValueError, match="cfg_pp must know the step: it works in a run only"):
        cfg_pp(ClassMixture())(torch.zeros(2, 2, 4, 4), 2.0, class_labels=LABELS)


REFUSED = [(name, {}) for name in REGISTRY if name not in ("euler", "ddim")]
REFUSED += [("ddim", {"eta": 0.3}), ("DDPM", {}), ("ddim", {"variance": "sigma_hat"})]


@pytest.mark.parametrize(("sampler", "options"), REFUSED, ids=str)
def test_samplers_with_other_steps_are_refused(sampler, options):
    with pytest.raises(ValueError, match="cfg_pp is right for euler, and for ddim and euler_anc"):
        kdiff.sample(ClassMixture(), sampler, options=options, guide="cfg_pp", **RUN)


@pytest.fixture
def edits():
    """One that goes over the grid twice, and one that leaves the steps alone."""

    def twice(inner, grid, _):
        return [*inner(grid), *inner(grid)]

    @edit("again", paper="none", levels=twice)
    def again(start, x, sigmas, *, noise):
        for visit in (0, 1):
            walk = start(x, sigmas, draw=visit)
            while walk.asks:
                walk.answer(*(yield list(walk.asks)))
        return walk.result

    @edit("watched", paper="none")
    def watched(start, x, sigmas, *, noise):
        walk = start(x, sigmas)
        while walk.asks:
            walk.answer(*(yield list(walk.asks)))
        return walk.result

    yield
    del EDITS["again"], EDITS["watched"]


def test_edits_that_change_the_steps_are_refused(edits):
    plain = kdiff.sample(ClassMixture(), "euler", guide="cfg_pp", **RUN)
    seen = kdiff.sample(ClassMixture(), "euler", guide="cfg_pp", edits="watched", **RUN)
    assert torch.equal(seen, plain)
    for name, options in (("again", {}), ("watched", {"S_churn": 1})):
        with pytest.raises(ValueError, match="cfg_pp does not go with edits that change the steps"):
            kdiff.sample(
                ClassMixture(), "euler", guide="cfg_pp", edits=name, options=options, **RUN
            )
