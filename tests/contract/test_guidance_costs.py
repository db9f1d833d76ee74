"""What guidance costs: calls of the network are counted, and budgets pay for them. And guidance by
an edit, which asks under conditions of its own."""

import pytest
import torch

import kdiff
from every_guidance import Counted, made, pictures, ten
from exact_models import Pointwise
from kdiff.editing import EDITS, edit
from kdiff.guidance import guide
from kdiff.lockstep import lockstep
from kdiff.model import network_nfe
from kdiff.samplers import Ask

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 3])


@pytest.mark.parametrize(
    ("scale", "calls"), [(2.0, [(4, 2.0)]), (1.0, [(2, 2.0)]), (0.0, [(2, 2.0)])]
)
def test_both_are_evaluated_in_one_call(scale, calls):
    model = Pointwise()
    guide(model, "cfg", scale=scale)(X, 2.0, class_labels=LABELS)
    assert model.calls == calls


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_states_count_what_the_network_does(deterministic):
    model, states = Pointwise(), []
    kdiff.sample(
        model,
        "heun",
        steps=3,
        n=2,
        class_labels=[1, 3],
        guide="cfg:scale=2",
        callback=states.append,
        deterministic=deterministic,
    )
    assert [(s.asks, s.nfe) for s in states] == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (5, 10)]
    assert [n for n, _ in model.calls] == [32 if deterministic else 4] * 5


@pytest.mark.parametrize(
    ("sampler", "nfe", "scale", "steps"),
    [("euler", 8, 2.0, 4), ("euler", 9, 2.0, 4), ("heun", 10, 2.0, 3), ("heun", 10, 1.0, 5)],
)
def test_a_budget_pays_for_the_network(sampler, nfe, scale, steps):
    model = guide(Pointwise(), "cfg", scale=scale)
    plan = kdiff.plan(model, sampler, nfe=nfe)
    assert plan.steps == steps and network_nfe(model, plan) <= nfe
    assert network_nfe(model, kdiff.plan(model, sampler, steps=steps + 1)) > nfe


def test_a_budget_that_pays_for_no_step():
    with pytest.raises(ValueError, match="nfe = 1 does not pay for one step: it takes 2 here"):
        kdiff.plan(guide(Pointwise(), "cfg", scale=2), "euler", nfe=1)


@pytest.fixture
def by_an_edit():
    """Classifier-free guidance as an edit: two asks for each of the sampler's."""

    @edit(
        "two_asks",
        paper="none",
        levels=lambda inner, grid, _: [s for s in inner(grid) for _ in "cu"],
    )
    def two_asks(start, x, sigmas, *, noise):
        walk = start(x, sigmas)
        while (ask := walk.ask) is not None:
            none = torch.full((len(ask.x),), -1)
            c, u = yield [ask, ask._replace(cond={"class_labels": none})]
            walk.answer(u + 2.5 * (c - u))
        return walk.result

    yield "two_asks"
    del EDITS["two_asks"]


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m_sde"])
def test_an_edit_may_ask_under_other_conditions(by_an_edit, sampler):
    chosen = {"steps": 4, "n": 3, "class_labels": [1, 3, 2], "dtype": torch.float64}
    edited = kdiff.sample(Pointwise(), sampler, edits=by_an_edit, **chosen)
    around = kdiff.sample(Pointwise(), sampler, guide="cfg:scale=2.5", **chosen)
    torch.testing.assert_close(edited, around, rtol=1e-12, atol=1e-12)
    plain, other = (kdiff.plan(Pointwise(), sampler, steps=4, edits=e) for e in ((), by_an_edit))
    assert other.nfe == 2 * plain.nfe
    seeds, cond = [0, 1, 2], {"class_labels": [1, 3, 2]}
    (together,) = lockstep(Pointwise(), [plain, other], seeds, dtype=torch.float64, cond=cond)
    assert torch.equal(together.outcomes[1].x, edited)


def test_what_an_ask_adds_is_not_what_another_had():
    """Equal x at equal sigma, once without a class and once with: lockstep shares no answer."""

    @edit("labelled", paper="none")
    def labelled(start, x, sigmas, *, noise):
        walk = start(x, sigmas)
        while (ask := walk.ask) is not None:
            walk.answer((yield ask._replace(cond={"class_labels": torch.full((len(ask.x),), 2)})))
        return walk.result

    try:
        plans = [kdiff.plan(Pointwise(), "euler", steps=2, edits=e) for e in ("labelled", ())]
        (together,) = lockstep(Pointwise(), plans, [0, 1], dtype=torch.float64)
    finally:
        del EDITS["labelled"]
    ours, plain = (outcome.x for outcome in together.outcomes)
    alone = kdiff.sample(Pointwise(), "euler", steps=2, n=2, dtype=torch.float64)
    assert torch.equal(plain, alone) and not torch.equal(ours, alone)
    assert Ask(X, 1.0).cond is None


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize(
    ("name", "nfe"), [("cfg", 2), ("threshold", 2), ("loss", 2), ("pag", 4), ("perp_neg", 3)]
)
def test_u_of_u_is_u(name, nfe, negative):
    """Two guidances around another one ask it about u three times. It is computed once."""
    inner = Counted(ten().to(dtype=torch.float64))
    model = guide(guide(made(inner, name), "cfg", scale=2.0), "cfg", scale=3.0)
    given = {"negative_class_labels": LABELS.flip(0)} if negative or name == "perp_neg" else {}
    model(pictures(inner), 2.0, class_labels=LABELS, **given)
    rows = sum(n for n, _ in inner.calls)
    assert rows == len(LABELS) * model.evaluations(2.0) == len(LABELS) * nfe
