"""Guided models: the formula, what it costs, and that they are models like others."""

import pickle
import re
from typing import Annotated

import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.analytic import gaussian_solution
from kdiff.guidance import GUIDANCE, Guided, guidance, guide, guided
from kdiff.lockstep import lockstep
from kdiff.model import network_nfe
from kdiff.modifications import Modification, chosen, several
from kdiff.names import UnknownName
from kdiff.options import Option
from small_networks import Network

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 3])


@pytest.fixture
def registered():
    """What a test registers is taken out again."""
    before = dict(GUIDANCE)
    yield GUIDANCE
    for name in GUIDANCE.keys() - before.keys():
        del GUIDANCE[name]


class Ten(Network):
    """With a null class, -1, as those of kdiff's models are."""

    def forward(self, x, c_noise, class_labels=None):
        none = class_labels < 0
        with_class = super().forward(x, c_noise, class_labels.clamp(min=0))
        return torch.where(none[:, None, None, None], super().forward(x, c_noise), with_class)


def ten() -> kdiff.Denoiser:
    return kdiff.Denoiser(Ten(), "edm", shape=(3, 8, 8), classes="abcdefghij", name="ten")


# --- every registered one ---

OPTIONS = {"cfg": [{"scale": s} for s in (-1.0, 0.0, 0.5, 1.0, 2.0)]}
EVERY = [(name, options) for name in GUIDANCE for options in [{}, *OPTIONS.get(name, [])]]
every_guidance = pytest.mark.parametrize(("name", "options"), EVERY, ids=str)


@every_guidance
def test_its_evaluations_are_those_it_claims(name, options):
    inner = Pointwise()
    model = guide(inner, name, **options)
    for sigma in (0.01, 1.0, 80.0):
        inner.calls.clear()
        d = model(X, sigma, class_labels=LABELS)
        assert d.shape == X.shape and d.dtype == X.dtype and d.isfinite().all()
        assert sum(n for n, _ in inner.calls) == len(X) * model.evaluations(sigma)


@every_guidance
def test_samples_are_the_same_in_any_batch_in_lockstep_and_in_another_process(name, options):
    model = guide(ten(), name, **options)
    plans = [kdiff.plan(model, s, steps=3) for s in ("heun", "euler", "dpmpp_2m_sde")]
    cond = {"class_labels": torch.tensor([4, 0, 9])}
    arguments = {"deterministic": True, "cond": cond}
    (only,) = lockstep(model, plans, [5, 2, 9], **arguments)
    for plan, outcome in zip(plans, only.outcomes, strict=True):
        ((_, states),) = kdiff.run(pickle.loads(pickle.dumps(model)), plan, [5, 2, 9], **arguments)
        *_, last = states
        assert torch.equal(outcome.x, last.x)
        cut = kdiff.run(model, plan, [5, 2, 9], batch=2, **arguments)
        assert torch.equal(torch.cat([list(states)[-1].x for _, states in cut]), last.x)
        assert last.nfe == network_nfe(model, plan)


@every_guidance
def test_it_is_a_model_and_says_what_it_is(name, options):
    inner = ten()
    model = guide(inner, name, **options)
    for attribute in ("name", "shape", "classes", "sigma_min", "sigma_max", "sigmas", "sigma_end"):
        assert getattr(model, attribute) == getattr(inner, attribute)
    for attribute in ("device", "dtype", "memory_format"):
        assert getattr(model, attribute) == getattr(inner, attribute)
    full = chosen(GUIDANCE, Modification(name, options))
    assert model.record() == {"name": "ten", "sha256": None, "guidance": [full.record()]}
    assert chosen(GUIDANCE, str(full)) == full  # as one writes it on the command line
    assert torch.equal(model.decode(X), X)


# --- classifier-free ---


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_formula(scale):
    """u + w (c - u), of two Gaussians that differ in their means, is D of a third Gaussian."""
    model = guide(Pointwise(), "cfg", scale=scale)
    found = model(X, 2.0, class_labels=LABELS)
    expected = Pointwise()(X, 2.0) + scale * (1 - 0.25 / 4.25) * LABELS[:, None]
    torch.testing.assert_close(found, expected)


def test_a_guided_run_ends_where_the_exact_one_does():
    """The ODE of a Gaussian whose mean is w times the class away from the rest."""
    grid = [9 - 8 * i / 300 for i in range(301)]
    x = kdiff.sample(
        Pointwise(), "heun", sigmas=grid, seeds=[3, 4], class_labels=LABELS, guide="cfg:scale=2.5"
    )
    start = 9 * kdiff.Noise([3, 4], (3,)).initial()
    mean = Pointwise().mean(start) + 2.5 * LABELS[:, None]
    expected = gaussian_solution(mean, 0.5, start, 9.0, 1.0)
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scale", "labels"), [(1.0, [1, 3]), (0.0, [-1, -1])])
def test_no_guidance_has_the_bits_of_the_model_itself(scale, labels):
    found = kdiff.sample(Pointwise(), steps=4, n=2, class_labels=[1, 3], guide=f"cfg:scale={scale}")
    assert torch.equal(found, kdiff.sample(Pointwise(), steps=4, n=2, class_labels=labels))


def test_rows_for_classes_are_zero_without_one():
    """One-hot rows, or embeddings."""
    seen = []

    def model(x, sigma, class_labels):
        seen.append(class_labels)
        return x

    model.classes = ("a", "b")
    rows = torch.eye(2, dtype=torch.float64)
    guide(model, "cfg", scale=2.0)(X, 2.0, class_labels=rows)
    assert torch.equal(seen[0], torch.cat([rows, torch.zeros(2, 2)]))


@pytest.mark.parametrize("batch", [3, 2])
def test_the_other_conditions_stay_with_their_samples(batch):
    cond = {"prompts": ["a", "bb", "ccc"], "lift": kdiff.Shared(torch.tensor([0.5, 1.0, 1.5]))}
    arguments = {"steps": 3, "guide": "cfg:scale=2", "batch": batch}
    together = kdiff.sample(Pointwise(), n=3, class_labels=[3, 1, 2], cond=cond, **arguments)
    for i, label in enumerate([3, 1, 2]):
        own = {"prompts": cond["prompts"][i : i + 1], "lift": cond["lift"]}
        alone = kdiff.sample(Pointwise(), seed=i, class_labels=[label], cond=own, **arguments)
        assert torch.equal(together[i], alone[0])


def test_guidance_of_a_guided_model():
    """u + a (u + b (c - u) - u) = u + a b (c - u). The outer one asks about u, for which the inner
    one asks about u, which is known, and about what is without its class for a second time."""
    inner = Pointwise()
    model = guide(guide(inner, "cfg", scale=2.0), "cfg:scale=3")
    expected = guide(Pointwise(), "cfg", scale=6.0)(X, 2.0, class_labels=LABELS)
    torch.testing.assert_close(model(X, 2.0, class_labels=LABELS), expected)
    assert inner.calls == [(4, 2.0), (2, 2.0)] and model.evaluations(2.0) == 3
    scales = [said["options"]["scale"] for said in model.record()["guidance"]]
    assert scales == [2.0, 3.0]  # from the inside out
    same = guided(Pointwise(), ["cfg:scale=2", Modification("cfg", {"scale": 3})])
    assert same.record() == model.record()
    assert guided(inner, []) is inner


@pytest.mark.parametrize(
    ("guide", "cond", "message"),
    [
        ("cgf", LABELS, "unknown guidance 'cgf'; did you mean cfg?"),
        ("", LABELS, "unknown guidance ''"),
        ("cfg:scale", LABELS, "unknown guidance 'cfg:scale'; did you mean cfg?"),
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
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


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


# --- one's own ---


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
