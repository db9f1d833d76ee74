"""Guided models: the formula, what it costs, and that they are models like others."""

import itertools
import pickle
import re

import pytest
import torch

import kdiff
from every_guidance import (
    INSIDE,
    LABELS,
    NEEDS,
    Counted,
    called,
    each_guidance,
    every_guidance,
    inside,
    last_of,
    made,
    neutral,
    pictures,
    suited_plans,
    ten,
    told,
)
from exact_models import Pointwise
from kdiff.guidance import GUIDANCE, guide
from kdiff.lockstep import lockstep
from kdiff.model import network_nfe
from kdiff.modifications import Modification, chosen, several
from kdiff.samplers import REGISTRY

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)


@every_guidance
def test_its_evaluations_are_those_it_claims(name, options):
    inner = inside(name)
    model = made(inner, name, options)
    networks = [one for one in (inner, *model.beside.values()) if isinstance(one, Counted)]
    for sigma in (0.01, 1.0, 80.0):
        for network in networks:
            network.calls.clear()
        d, x = called(model, sigma), pictures(model)
        assert d.shape == x.shape and d.dtype == x.dtype and d.isfinite().all()
        rows = sum(n for network in networks for n, _ in network.calls)
        assert rows == len(x) * model.evaluations(sigma)


@each_guidance
def test_around_every_other_one_its_evaluations_are_those_they_claim(name):
    for other in GUIDANCE:
        inner = inside(other if other in INSIDE else name)
        within = made(inner, other)
        model = made(within, name)
        cond = {**told(other, LABELS), **told(name, LABELS)}
        assert called(model, 2.0, cond).isfinite().all()
        networks = (inner, *within.beside.values(), *model.beside.values())
        rows = sum(n for one in networks for n, _ in getattr(one, "calls", ()))
        assert rows == len(LABELS) * model.evaluations(2.0)


@pytest.mark.parametrize("name", [name for name in GUIDANCE if neutral(name) is not None])
def test_its_neutral_setting_has_the_bits_and_the_cost_of_the_model_inside(name):
    inner = inside(name)
    model = made(inner, name, neutral(name))
    for sigma in (0.01, 2.0):
        plain = inner(pictures(inner), sigma, class_labels=LABELS)
        assert torch.equal(called(model, sigma), plain)
        assert model.evaluations(sigma) == 1


@each_guidance
def test_with_any_sampler_it_is_finite_or_refused_in_one_line(name):
    model, ran = made(inside(name), name), 0
    for sampler, steps in itertools.product(REGISTRY, (1, 2, 3)):
        try:
            plan = kdiff.plan(model, sampler, steps=steps)
        except ValueError as error:
            assert name in str(error) and "\n" not in str(error) and len(str(error)) < 300
            continue
        last = last_of(model, plan, told(name, LABELS))
        assert last.x.isfinite().all() and network_nfe(model, plan) in (None, last.nfe)
        ran += 1
    assert ran


@every_guidance
def test_samples_are_the_same_in_any_batch_in_lockstep_and_in_another_process(name, options):
    model = made(ten(), name, options)
    plans = suited_plans(model)
    cond = told(name, torch.tensor([4, 0, 9]))
    arguments = {"deterministic": True, "cond": cond}
    (only,) = lockstep(model, plans, [5, 2, 9], **arguments)
    for plan, outcome in zip(plans, only.outcomes, strict=True):
        ((_, states),) = kdiff.run(pickle.loads(pickle.dumps(model)), plan, [5, 2, 9], **arguments)
        *_, last = states
        assert torch.equal(outcome.x, last.x)
        cut = kdiff.run(model, plan, [5, 2, 9], batch=2, **arguments)
        assert torch.equal(torch.cat([list(states)[-1].x for _, states in cut]), last.x)
        assert last.nfe == network_nfe(model, plan)


@each_guidance
def test_all_its_networks_move_together(name):
    moved, wide = made(ten(), name), made(ten().to(dtype=torch.float64), name)
    assert moved.to(dtype=torch.float64) is moved
    assert [getattr(one, "dtype", None) for one in moved.beside.values()] == [
        getattr(one, "dtype", None) for one in wide.beside.values()
    ]
    for plan in suited_plans(moved):
        found, expected = (last_of(model, plan, told(name, LABELS)).x for model in (moved, wide))
        torch.testing.assert_close(found, expected)  # weights that were in float32


@every_guidance
def test_it_is_a_model_and_says_what_it_is(name, options):
    inner = ten()
    model = made(inner, name, options)
    for attribute in ("name", "shape", "classes", "sigma_min", "sigma_max", "sigmas", "sigma_end"):
        assert getattr(model, attribute) == getattr(inner, attribute)
    for attribute in ("device", "dtype", "memory_format"):
        assert getattr(model, attribute) == getattr(inner, attribute)
    full = chosen(GUIDANCE, Modification(name, options))
    (said,) = model.record()["guidance"]
    assert model.record() == {"name": "ten", "sha256": None, "guidance": [said]}
    expected = full.record()
    expected["options"].update((key, said["options"][key]) for key in model.beside)
    assert said == expected
    if name not in NEEDS:
        assert chosen(GUIDANCE, str(full)) == full  # as one writes it on the command line
    assert torch.equal(model.decode(X), X)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("guide", "cond", "message"),
    [
        ("clasifier_free", LABELS, "unknown guidance 'clasifier_free'; did you mean classif"),
        ("", LABELS, "unknown guidance ''"),
        ("cfg:scale", LABELS, "unknown guidance 'cfg:scale'; did you mean"),
        ("cfg:scal=2", LABELS, "unknown cfg option 'scal'; did you mean scale?"),
        ("cfg:scale=", LABELS, "a guidance is NAME:key=value:key=value, each key once, not"),
        ("cfg:scale=1:scale=2", LABELS, "each key once"),
        ("cfg:scale=two", LABELS, "scale must be a number from -100 to 100, not 'two'"),
        ("cfg:scale=nan", LABELS, "scale must be a number from -100 to 100, not 'nan'"),
        ("cfg:scale=1,2", LABELS, "scale must be a number from -100 to 100, not '1,2'"),
        ("cfg", None, "the guidance cfg needs class_labels"),
        (7, LABELS, "a guidance is a name such as NAME:key=value, not 7"),
        ("cfg:scale=1:SCALE=2", LABELS, "each key once"),
        ({"cfg": 2}, LABELS, "a guidance is a name such as NAME:key=value, not {'cfg': 2}"),
        (Modification("cfg", None), LABELS, "the options of cfg must be a mapping, not NoneType"),
        (Modification("cfg", {1: 2}), LABELS, "the name of a cfg option must be text, not 1"),
        ("x" * 5000, LABELS, "unknown guidance 'xxxx"),
        ("cfg:scale=" + "9" * 5000, LABELS, "scale must be a number from -100 to 100, not '999"),
        ("cfg:" + "k" * 5000 + "=1", LABELS, "unknown cfg option 'kkkk"),
        (["cfg", None], LABELS, "a guidance is a name such as NAME:key=value, not None"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(guide, cond, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        kdiff.sample(Pointwise(), n=2, steps=1, class_labels=cond, guide=guide)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500  # with all names


@pytest.mark.parametrize("labels", [[1, 3], 1, torch.tensor(1), torch.tensor([1])], ids=str)
def test_labels_are_a_row_for_each_sample_also_without_kdiff_sample(labels):
    with pytest.raises(ValueError, match="class_labels must be a tensor with a row for each"):
        guide(Pointwise(), "cfg")(X, 1.0, class_labels=labels)


def test_a_model_without_classes_is_refused():
    model = kdiff.Denoiser(lambda x, t: x, "edm", shape=(3,), name="plain")
    with pytest.raises(ValueError, match="plain has no classes"):
        guide(model, "cfg")


def test_a_list_of_values_is_every_combination():
    every = several(GUIDANCE, "cfg:scale=1,1.5,2")
    assert [one.options["scale"] for one in every] == [1.0, 1.5, 2.0]
    assert [str(one) for one in every][1] == "cfg:scale=1.5"
    with pytest.raises(ValueError, match="scale must be a number"):
        several(GUIDANCE, "cfg:scale=1,,2")
