"""A guidance that a user writes: what it may do, and what it gets from kdiff."""

import pickle
from typing import Annotated

import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.guidance import GUIDANCE, Guided, guidance, guide
from kdiff.lockstep import lockstep
from kdiff.names import UnknownName
from kdiff.options import Option

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 3])


@pytest.fixture
def registered():
    """What a test registers is taken out again."""
    before = dict(GUIDANCE)
    yield GUIDANCE
    for name in GUIDANCE.keys() - before.keys():
        del GUIDANCE[name]


def test_a_stateless_guidance_in_a_few_lines(registered):
    @guidance("halved", paper="none", aliases=("half",), presets={"quartered": {"weight": 0.25}})
    def halved(model, *, weight: Annotated[float, Option("of D", 0, 1)] = 0.5):
        return lambda x, sigma, **cond: weight * model(x, sigma, **cond)

    for what, weight in [("halved", 0.5), ("Half", 0.5), ("quartered", 0.25)]:
        model = guide(Pointwise(), what)
        assert torch.equal(model(X, 2.0), weight * Pointwise()(X, 2.0))
        assert model.record()["guidance"] == [{"name": "halved", "options": {"weight": weight}}]
    assert guide(Pointwise(), "halved:weight=0.1").evaluations(1.0) == 1
    with pytest.raises(ValueError, match="weight must be a number from 0 to 1"):
        guide(Pointwise(), "halved", weight=2)
    with pytest.raises(UnknownName, match="did you mean halved"):
        guide(Pointwise(), "halvd")


def test_gradients_may_be_used_inside_and_do_not_leak(registered):
    """D - r grad |D|^2 / 2 = (1 - r v) D for a Gaussian, v the slope of its D."""

    @guidance("descending", paper="none")
    def descending(model, *, rate: Annotated[float, Option("of descent", 0)] = 0.5):
        def denoise(x, sigma, **cond):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                d = model(x, sigma, **cond)
                (slope,) = torch.autograd.grad(d.square().sum() / 2, x, retain_graph=True)
                return d - rate * slope  # with its graph

        return denoise

    v = 0.25 / 4.25
    plan = kdiff.plan(sampler="heun", sigmas=[2.0, 1.0, 0.0])
    for around in (torch.no_grad, torch.enable_grad):
        with around():
            model = guide(Pointwise(), "descending")
            ((_, states),) = kdiff.run(model, plan, [0, 1], dtype=torch.float64)
            states = list(states)
            (only,) = lockstep(model, [plan, plan], [0, 1], dtype=torch.float64)
        first = states[0]
        torch.testing.assert_close(first.denoised, (1 - v / 2) * Pointwise()(first.x, 2.0))
        assert not any(s.x.requires_grad or s.denoised.requires_grad for s in states)
        assert torch.equal(only.outcomes[0].x, states[-1].x)


def test_a_guidance_can_be_differentiated():
    weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def model(x, sigma, class_labels):
        return weight * class_labels[:, None] + 0 * x

    model.classes = ("a", "b")
    plan = kdiff.plan(sampler="euler", sigmas=[2.0, 0.0])
    noise = kdiff.Noise([0, 1], (3,), torch.float64)
    *_, last = kdiff.drive(
        guide(model, "cfg", scale=3.0), plan, X, noise, grad=True, class_labels=LABELS
    )
    (slope,) = torch.autograd.grad(last.x.sum(), weight)
    expected = 3 * (
        (-1 + 3 * (1 + 1)) + (-1 + 3 * (3 + 1))
    )  # u = -w, c = w and 3 w, 3 numbers each
    assert float(slope) == pytest.approx(expected)


def test_a_guided_model_is_pickled_by_name():
    model = guide(Pointwise(), "cfg", scale=3.0)
    copy = pickle.loads(pickle.dumps(model))
    assert isinstance(copy, Guided) and copy.record() == model.record()
    assert torch.equal(copy(X, 2.0, class_labels=LABELS), model(X, 2.0, class_labels=LABELS))
