"""Adaptive projected guidance: the guidance, and the edit with its momentum."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import adaptive_samplers
import kdiff
from class_mixture import ClassMixture
from kdiff.editing import EDITS, edit, guiding
from kdiff.guidance import GUIDANCE, guide
from kdiff.lockstep import lockstep
from kdiff.modifications import chosen
from two_answers import LABELS, SHAPE, SIGMAS, inputs

GRID = [20.0, 5.0, 1.5, 0.5, 0.1, 0.0]
CHOSEN = "scale=4:norm=1.5:eta=0.25"


def by_hand(c, d, scale, norm, eta):
    """One sample, as vectors: d is projected by a matrix."""
    shape, c, d = c.shape, c.ravel(), d.ravel()
    d = d * min(1, norm / np.linalg.norm(d)) if norm else d
    onto = np.outer(c, c) / (c @ c)
    orthogonal = (np.eye(len(c)) - onto) @ d
    return (c + (scale - 1) * (orthogonal + eta * onto @ d)).reshape(shape)


@pytest.mark.parametrize("norm", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_formula(sigma, eta, norm):
    model, x, c, u = inputs(sigma)
    guided = guide(model, "apg", scale=3.0, norm=norm, eta=eta)
    found = guided(x, sigma, class_labels=LABELS)
    samples = zip(c.numpy(), u.numpy(), strict=True)
    expected = np.stack([by_hand(one, one - other, 3.0, norm, eta) for one, other in samples])
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert model.calls == [(6, sigma)] and guided.evaluations(sigma) == 2


@pytest.mark.parametrize("sigma", SIGMAS)
def test_without_a_bound_and_with_the_whole_parallel_part_it_is_cfg(sigma):
    model, x, *_ = inputs(sigma)
    ours, theirs = guide(model, "apg:scale=3:norm=0:eta=1"), guide(model, "cfg:scale=3")
    torch.testing.assert_close(*(g(x, sigma, class_labels=LABELS) for g in (ours, theirs)))


def test_zeros_and_equal_answers_are_nothing_to_project():
    def model(x, sigma, class_labels):
        return torch.where(class_labels[:, None] > 0, 1.0, 0.0) * torch.ones_like(x)

    model.classes = "abc"
    x, labels = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    found = guide(model, "apg:scale=3:norm=0")(x, 1.0, class_labels=labels)
    assert torch.equal(found, torch.tensor([[0.0] * 3, [1.0] * 3], dtype=torch.float64))


# --- the edit ---


def sample(sampler="euler", labels=LABELS, **arguments):
    fixed = {"sigmas": GRID, "n": 3, "dtype": torch.float64}
    return kdiff.sample(ClassMixture(SHAPE), sampler, class_labels=labels, **fixed, **arguments)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde"])
def test_without_momentum_it_is_the_guidance(sampler):
    edited = sample(sampler, edits=f"apg:{CHOSEN}:momentum=0")
    torch.testing.assert_close(edited, sample(sampler, guide=f"apg:{CHOSEN}"))
    assert not torch.allclose(edited, sample(sampler, edits=f"apg:{CHOSEN}"), atol=1e-3)


@pytest.mark.parametrize("momentum", [-0.75, 0.5])
def test_the_sum_runs_along_the_run(momentum):
    """Euler's, with the formula of one sample."""
    model, total = ClassMixture(SHAPE), 0
    x = GRID[0] * kdiff.Noise([0, 1, 2], model.shape, torch.float64).initial()
    for s, t in pairwise(GRID):
        c, u = model(x, s, LABELS), model(x, s)
        total = (c - u) + momentum * total
        samples = zip(c.numpy(), total.numpy(), strict=True)
        d = torch.from_numpy(np.stack([by_hand(one, sum_, 4, 1.5, 0.25) for one, sum_ in samples]))
        x = x + (t - s) * (x - d) / s
    torch.testing.assert_close(sample(edits=f"apg:{CHOSEN}:momentum={momentum}"), x)


@pytest.mark.parametrize("sampler", ["adaptive", "adaptive_by_sample"])
def test_each_sample_has_its_own_sum_also_in_adaptive_samplers(sampler):
    with adaptive_samplers.registered():
        if sampler == "adaptive_by_sample":  # whose steps do not depend on the others
            together = sample(sampler, edits=f"apg:{CHOSEN}")
            alone = torch.cat([one(sampler, i) for i in range(3)])
            torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
        without = sample(sampler, edits=f"apg:{CHOSEN}:momentum=0")
        torch.testing.assert_close(without, sample(sampler, guide=f"apg:{CHOSEN}"))


def one(sampler, i):
    chosen = {"sigmas": GRID, "seed": i, "class_labels": LABELS[i : i + 1], "dtype": torch.float64}
    return kdiff.sample(ClassMixture(SHAPE), sampler, edits=f"apg:{CHOSEN}", **chosen)


@pytest.mark.parametrize("batch", [1, 2])
def test_seeds_are_the_same_in_any_batch_and_in_lockstep(batch):
    together = sample("dpmpp_2m_sde", edits=f"apg:{CHOSEN}", deterministic=True)
    cut = sample("dpmpp_2m_sde", edits=f"apg:{CHOSEN}", deterministic=True, batch=batch)
    assert torch.equal(together, cut)
    plans = [
        kdiff.plan(ClassMixture(SHAPE), "dpmpp_2m_sde", sigmas=GRID, edits=edits)
        for edits in ((), f"apg:{CHOSEN}", f"apg:{CHOSEN}:momentum=0", f"apg:{CHOSEN}")
    ]
    chosen = {"cond": {"class_labels": LABELS}, "dtype": torch.float64, "deterministic": True}
    (lanes,) = lockstep(ClassMixture(SHAPE), plans, [0, 1, 2], **chosen)
    assert torch.equal(lanes.outcomes[1].x, together)
    assert torch.equal(lanes.outcomes[3].x, together)
    assert not torch.equal(lanes.outcomes[2].x, together)


@pytest.mark.parametrize(("scale", "each"), [(1.0, 1), (0.0, 2), (3.0, 2)])
def test_it_takes_two_evaluations_for_each_of_the_samplers(scale, each):
    plan = kdiff.plan(sampler="heun", steps=4, edits=f"apg:scale={scale}")
    assert plan.nfe == each * kdiff.plan(sampler="heun", steps=4).nfe
    budget = kdiff.plan(ClassMixture(SHAPE), "heun", nfe=20, edits=f"apg:scale={scale}")
    assert budget.nfe <= 20 < budget.nfe + 2 * each


def test_scale_1_is_the_unguided_run_to_the_bit():
    assert torch.equal(sample("heun", edits="apg:scale=1"), sample("heun"))


def test_it_leads_away_from_a_negative_class():
    cond = {"negative_class_labels": LABELS.flip(0)}
    edited = sample(edits=f"apg:{CHOSEN}:momentum=0", cond=cond)
    torch.testing.assert_close(edited, sample(guide=f"apg:{CHOSEN}", cond=cond))
    assert not torch.allclose(edited, sample(guide=f"apg:{CHOSEN}"))


def test_what_another_edit_says_of_classes_is_what_it_leaves_out(labelled):
    """That edit is nearer to the sampler: c is of the class that it says."""
    edited = sample(edits=[labelled, f"apg:{CHOSEN}"])
    torch.testing.assert_close(edited, sample(labels=[1, 1, 1], edits=f"apg:{CHOSEN}"))


@pytest.fixture(params=["values", "a function"])
def labelled(request):
    def say(run):
        return {**run, "class_labels": torch.ones(len(LABELS), dtype=torch.int64)}

    @edit("labelled", paper="none")
    def labelled(start, x, sigmas, *, noise):
        walk = start(x, sigmas)
        while (ask := walk.ask) is not None:
            walk.answer((yield ask._replace(cond=say({}) if request.param == "values" else say)))
        return walk.result

    yield "labelled"
    del EDITS["labelled"]


def test_a_model_without_classes_is_refused():
    plain = kdiff.Denoiser(lambda x, t: x, "edm", shape=(3,), name="plain")
    with pytest.raises(ValueError, match="plain has no classes: leave out the guidance apg"):
        kdiff.plan(plain, "euler", steps=2, edits="apg:momentum=0.5")
    (same,) = guiding(kdiff.plan(sampler="euler", edits="apg:momentum=0.5:eta=1").edits)
    assert same == chosen(GUIDANCE, "apg:eta=1")


def test_without_a_class_there_is_nothing_to_leave_out():
    with pytest.raises(ValueError, match="guidance needs class_labels, or a prompt, to leave out"):
        kdiff.sample(ClassMixture(SHAPE), "euler", steps=2, edits="apg")
