"""Edits: coroutines around a sampler, with their own noise, restarts and gradients; right in any
batch and in lockstep, and counted."""

import pickle
import re
from itertools import pairwise

import pytest
import torch

import kdiff
import odd_edits
import odd_samplers
from exact_models import Pointwise
from kdiff.driver import Checked
from kdiff.editing import EDITS, begin
from kdiff.lockstep import lockstep
from kdiff.model import as_model, network_nfe
from kdiff.modifications import Modification, chosen
from kdiff.names import UnknownName
from kdiff.samplers import REGISTRY, Ask, Sampler
from odd_samplers import plan_of

TO_ZERO = [8.0, 3.0, 1.0, 0.3, 0.0]
SEEDS = [5, 2, 9]


@pytest.fixture(autouse=True)
def registered():
    with odd_edits.registered():
        yield


NAMES = [*EDITS, "clamped", "doubled", "shaken", "repeated", "pulled"]


def planned(sampler, *edits, sigmas=TO_ZERO, **options):
    return kdiff.plan(sampler=sampler, sigmas=sigmas, edits=edits, options=options)


def told(seeds=SEEDS):
    """Each seed has a class of its own: some edits guide."""
    return {"class_labels": torch.tensor([seed % 4 for seed in seeds])}


def states_of(plan, seeds=SEEDS, **arguments):
    return odd_samplers.states_of(plan, seeds, cond=told(seeds), **arguments)


# --- any edit of any sampler ---


@pytest.mark.parametrize("sampler", REGISTRY)
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_picture_in_any_batch_and_in_lockstep(name, sampler):
    plan = planned(sampler, name)
    expected = states_of(plan)
    for deterministic in (False, True):
        alone = [states_of(plan, [s], deterministic=deterministic)[-1].x for s in SEEDS]
        assert torch.equal(torch.cat(alone), expected[-1].x)
    others = [planned(sampler), planned(sampler, name), planned(sampler, name, "clamped")]
    (only,) = lockstep(Pointwise(), [*others[:1], plan, *others], SEEDS, cond=told())
    assert torch.equal(only.outcomes[1].x, expected[-1].x)
    assert torch.equal(only.outcomes[3].x, expected[-1].x)
    assert torch.equal(only.outcomes[0].x, states_of(others[0])[-1].x)
    assert torch.equal(only.outcomes[4].x, states_of(others[2])[-1].x)
    assert not torch.equal(only.outcomes[0].x, expected[-1].x)


@pytest.mark.parametrize("sampler", ["euler", "heun", "plms", "unipc", "dpmpp_sde"])
@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_known_before_and_counted(name, sampler):
    plan = planned(sampler, name)
    *states, last = states_of(plan)
    assert plan.nfe == last.nfe == last.asks == len(states)
    assert list(plan.levels) == [state.sigma for state in states]
    assert network_nfe(as_model(Pointwise()), plan) == plan.nfe
    assert all(0 <= state.step < plan.steps for state in states) and last.step == plan.steps


@pytest.mark.parametrize("name", NAMES)
def test_adaptive_samplers_can_be_edited(name):
    base = plan_of(odd_samplers.adaptive, TO_ZERO)
    plan = kdiff.Plan(base.sampler, base.options, base.sigmas, "given", (chosen(EDITS, name),))
    together = states_of(plan)
    assert plan.nfe is plan.levels is None
    for i, seed in enumerate(SEEDS):
        assert torch.equal(states_of(plan, [seed])[-1].x[0], together[-1].x[i])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_record_and_in_what_is_pickled(name):
    plan = planned("heun", f"{name}")
    full = chosen(EDITS, name)
    assert plan.record()["edits"] == [full.record()]
    assert "edits" not in planned("heun").record()
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan and torch.equal(states_of(copy)[-1].x, states_of(plan)[-1].x)


# --- one by one ---


def test_answers_are_changed():
    first, last = states_of(planned("euler", "clamped:most=0.5", sigmas=[8.0, 0.0]))
    assert first.denoised.abs().max() > 0.5  # what the model says
    assert torch.equal(last.x, first.denoised.clamp(-0.5, 0.5))  # what the sampler heard


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (["doubled", "clamped"], lambda d: 2 * d.clamp(-0.5, 0.5)),
        (["clamped", "doubled"], lambda d: (2 * d).clamp(-0.5, 0.5)),
    ],
)
def test_the_last_edit_is_the_nearest_to_the_model(edits, expected):
    edits = [name + ":most=0.5" if name == "clamped" else name for name in edits]
    first, last = states_of(planned("euler", *edits, sigmas=[8.0, 0.0]))
    assert torch.equal(last.x, expected(first.denoised))


def test_an_edit_is_named_alone_or_in_a_list_and_by_its_other_names():
    one = kdiff.plan(sampler="euler", sigmas=TO_ZERO, edits="clip:most=0.1")
    same = [planned("euler", what) for what in ("tight", Modification("Clamped", {"most": "0.1"}))]
    assert [plan.edits for plan in same] == [one.edits] * 2


def test_the_noise_of_an_edit_is_its_own():
    plan = planned("euler_ancestral", "shaken", "shaken", sigmas=[3.0, 1.0])
    noise = Recorded()
    list(kdiff.drive(Pointwise(), plan, torch.ones(1, 3), noise))
    streams = [(s, t, draw, stream) for _, s, t, draw, stream in noise.drawn]
    assert len(set(streams)) == 3
    assert (3.0, 1.0, 0, "") in streams  # the sampler's, as without edits
    assert len({stream for *_, stream in streams}) == 3


class Recorded:
    """Noise that remembers what was drawn of it."""

    def __init__(self):
        self.noise, self.drawn = kdiff.Noise([0], (3,)), []

    def white(self, s, t, draw=0, *, stream=""):
        self.drawn.append(("white", s, t, draw, stream))
        return self.noise.white(s, t, draw, stream=stream)

    def brownian(self, s, t, draw=0, *, stream=""):
        self.drawn.append(("brownian", s, t, draw, stream))
        return self.noise.brownian(s, t, draw, stream=stream)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
@pytest.mark.parametrize("edits", [["repeated:times=3"], ["shaken", "repeated"]])
def test_a_repeated_visit_draws_other_noise(sampler, edits):
    noise = Recorded()
    plan = planned(sampler, *edits)
    list(kdiff.drive(Pointwise(), plan, torch.ones(1, 3), noise))
    assert len(set(noise.drawn)) == len(noise.drawn)
    drawn = {draw for draw in noise.drawn if draw[4] == ""}
    unedited = Recorded()
    list(kdiff.drive(Pointwise(), planned(sampler), torch.ones(1, 3), unedited))
    assert drawn == set(unedited.drawn)  # the first visit draws what it always does


def test_a_part_of_the_grid_is_a_run_of_its_own():
    """Without repetition `repeated` cuts the run in two, and Euler has no memory."""
    whole, cut = planned("euler_ancestral"), planned("euler_ancestral", "repeated:times=0")
    assert torch.equal(states_of(whole)[-1].x, states_of(cut)[-1].x)
    assert planned("dpmpp_2m", "repeated:times=2").nfe == 2 + 2 * 2 + 2
    for sampler in REGISTRY:  # half of two levels is one, from which there is nowhere to go
        edited = planned(sampler, "repeated:times=2", sigmas=[4.0, 0.0])
        one = edited.sampler.nfe(1, "zero", edited.options)
        if one is None or edited.sampler.ode is None:
            continue  # it chooses its own steps, or makes several at one level
        *states, last = states_of(edited)
        assert len(states) == 3 * one
        torch.testing.assert_close(last.x, states[-1].denoised)
    steps = [state.step for state in states_of(planned("heun", "repeated"))]
    assert steps == [0, 1, 1, 2, 0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("nfe", range(1, 20))
def test_a_budget_pays_for_the_edits_too(nfe):
    def made(**arguments):
        return kdiff.plan(Pointwise(), "heun", edits="repeated:times=2", **arguments)

    if nfe < made(steps=1).nfe:
        with pytest.raises(ValueError, match=f"nfe = {nfe} does not pay for one step"):
            made(nfe=nfe)
    else:
        plan = made(nfe=nfe)
        assert plan.nfe <= nfe < made(steps=plan.steps + 1).nfe


def test_a_gradient_through_the_denoiser():
    """D = m + v (x - m): the gradient of |D|^2 / 2 is v D."""
    plan, v = planned("euler", "pulled", sigmas=[2.0, 0.0]), 0.25 / 4.25
    for around in (torch.no_grad, torch.enable_grad):
        for deterministic in (False, True):
            with around():
                first, last = states_of(plan, deterministic=deterministic)
            torch.testing.assert_close(last.x, (1 - v / 2) * first.denoised)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_with_a_graph_reaches_the_sampler_or_the_states(name):
    heard = []

    def listening(x, sigmas):
        for s, t in pairwise(sigmas):
            heard.append(x)
            d = yield Ask(x, s)
            heard.append(d)
            x = (t / s) * x + (1 - t / s) * d
        return x

    sampler = Sampler("listening", listening, lambda options: 1, "none")
    weight = torch.nn.Parameter(torch.tensor(0.5))
    plan = kdiff.Plan(sampler, {}, TO_ZERO, "given", (chosen(EDITS, name),))
    x, noise = torch.ones(3, 3, requires_grad=True), kdiff.Noise(SEEDS, (3,))
    states = list(kdiff.drive(lambda x, sigma, **_: weight * x, plan, x, noise, **told()))
    assert heard and not any(getattr(tensor, "requires_grad", False) for tensor in heard)
    assert not any(s.x.requires_grad or s.denoised.requires_grad for s in states)


def test_a_whole_edited_run_can_be_differentiated():
    plan = planned("heun", "clamped:most=3", "repeated", sigmas=[3.0, 1.4, 0.6, 0.2])

    def end(x):
        *_, last = kdiff.drive(Pointwise(), plan, x, kdiff.Noise([0], (3,), x.dtype), grad=True)
        return last.x

    x = torch.tensor([[0.4, -2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, x)


def test_a_plan_is_begun_without_a_driver():
    """Schedulers begin one so: they are driven from outside."""
    plan = planned("euler", "doubled", sigmas=[4.0, 2.0])
    x = torch.ones(1, 3)
    walk = begin(plan, x, Checked(kdiff.Noise([0], (3,)), x))
    assert walk.ask.sigma == 4.0
    walk.answer(torch.zeros(1, 3))
    assert walk.ask is None and torch.equal(walk.result, x / 2)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ("clampd", "unknown edit 'clampd'; did you mean clamped"),
        (["clamped", "doubled:most=1"], "unknown doubled option 'most'"),
        ("clamped:most=-1", "most must be a number, at least 0, not '-1'"),
        (["clamped", 7], "an edit is a name such as NAME:key=value, not 7"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(edits, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        kdiff.plan(sampler="euler", sigmas=TO_ZERO, edits=edits)
    assert "\n" not in str(error.value)


def test_equal_modifications_are_one_key():
    one, other = {"a": 1.0, "b": 2.0}, {"b": 2, "a": 1}
    assert Modification("twice", one) == Modification("twice", other)
    assert len({Modification("twice", one), Modification("twice", other)}) == 1


def test_an_edit_that_nobody_registered():
    with pytest.raises(UnknownName, match="unknown edit 'inpaint'"):
        kdiff.plan(sampler="euler", edits=["inpaint"])
