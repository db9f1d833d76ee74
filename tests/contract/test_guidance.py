"""Guided models: the formula, what it costs, and that they are models like others."""

import contextlib
import itertools
import math
import pickle
import re

import pytest
import torch

import kdiff
from exact_models import Pointwise
from judging import squares, ten_logits
from kdiff.guidance import GUIDANCE, Step, guide
from kdiff.lockstep import lockstep
from kdiff.model import Wrapper, as_model, network_nfe
from kdiff.modifications import Modification, chosen, several
from kdiff.samplers import REGISTRY
from small_networks import Network

X = torch.tensor([[3.0, -1.0, 0.2], [0.4, 8.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 3])


class Attending(torch.nn.Module):
    """Self-attention among the pixels, added."""

    def forward(self, x):
        pixels = x.flatten(2).mT
        h = torch.nn.functional.scaled_dot_product_attention(pixels, pixels, pixels)
        return x + h.mT.reshape(x.shape)


class Ten(Network):
    """With a null class, -1, as those of kdiff's models are, and a layer in the middle; its output
    times a `factor`."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor
        self.mid_block = Attending()

    def forward(self, x, c_noise, class_labels=None):
        x, none = self.mid_block(x), class_labels < 0
        with_class = super().forward(x, c_noise, class_labels.clamp(min=0))
        without = super().forward(x, c_noise)
        return self.factor * torch.where(none[:, None, None, None], without, with_class)


def ten(network=None) -> kdiff.Denoiser:
    network = network or Ten()
    return kdiff.Denoiser(network, "edm", shape=(3, 8, 8), classes="abcdefghij", name="ten")


# --- every registered one ---

# Settings beside the defaults.
SCALES = [{"scale": s} for s in (-1.0, 0.0, 0.5, 1.0, 2.0)]
OPTIONS = {
    "cfg": SCALES,
    "ho_salimans": [{"s": s} for s in (-1.0, 0.0, 2.0)],
    "interval": [{"low": 0.5, "high": 2.0}, {"low": 1.0}],
    "rescale": [{"phi": 0.0}, {"phi": 1.0, "space": "denoised"}],
    "apg": [*SCALES, {"norm": 0.0, "eta": 1.0}],
    "cfg_zero": [*SCALES, {"zero_above": 1.0}, {"zero_above": 0.5, "space": "noise"}],
    "tcfg": [*SCALES, {"space": "v"}],
    "eps_scaling": [{"k": 1.0}, {"k": 1.1}],
    "threshold": [{"most": 0.5}],
    "dynamic_threshold": [{"percentile": 0.5, "most": 0.3}],
    "perp_neg": [{"scale": 1.0, "neg_scale": 0.0}, {"scale": 2.0}],
    "magnitude_aware": [{"scale": 1.0}, {"alpha": 0.0, "space": "noise"}],
    "fdg": [{"scales": scales} for scales in ("1+1", "3", "1+2")],
    "cfg_pp": [{"scale": s} for s in (0.0, 1.0)],
    "mimic": [{"scale": 1.0, "mimic": 1.0}, {"percentile": 0.9}],
    "autoguidance": [{"scale": s} for s in (0.0, 1.0)],
    "slg": [{"scale": 0.0}, {"layers": "mid_*"}],
    "pag": [{"low": 0.5, "high": 2.0}],
    "seg": [{"blur": 1.0}],
    "classifier": [{"scale": 2.0, "conditional": False}],
}
# With which one answers as the model inside does; otherwise with a scale of 1, if it has one.
NEUTRAL = {
    "interval": {},
    "rescale": {"phi": 0.0},
    "eps_scaling": {"k": 1.0},
    "ho_salimans": {"s": 0.0},
    "perp_neg": {"scale": 1.0, "neg_scale": 0.0},
    "fdg": {"scales": "1+1"},
    "cfg_pp": None,
    "mimic": {"scale": 1.0, "mimic": 1.0},
    "slg": {"scale": 0.0},
    "pag": {"scale": 0.0},
    "seg": {"scale": 0.0},
    "classifier": {"scale": 0.0},
    "classifier_mean_shift": {"scale": 0.0},
    "loss": {"scale": 0.0},
}
# A model inside for those that exact ones do not suit.
INSIDE = dict.fromkeys(("slg", "pag", "seg"), lambda: ten().to(dtype=torch.float64))
# Options that one cannot do without, for a model; and those that need a negative class.
NEEDS = {
    "autoguidance": lambda inner: {"model": worse(inner)},
    "classifier": lambda inner: {"classifier": ten_logits},
    "classifier_mean_shift": lambda inner: {"classifier": ten_logits},
    "loss": lambda inner: {"function": squares},
}
WITH_NEGATIVE = {"perp_neg"}


def neutral(name):
    by_default = {"scale": 1.0} if "scale" in GUIDANCE[name].options else None
    return NEUTRAL.get(name, by_default)


EVERY = [(name, options) for name in GUIDANCE for options in [{}, *OPTIONS.get(name, [])]]
every_guidance = pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
each_guidance = pytest.mark.parametrize("name", list(GUIDANCE))


class Counted(Wrapper):
    """A model that remembers what it was asked."""

    def __init__(self, model):
        super().__init__(as_model(model))
        self.calls = []

    def __call__(self, x, sigma, **cond):
        self.calls.append((len(x), sigma))
        return self.model(x, sigma, **cond)


def exact() -> Counted:
    return Counted(Pointwise((2, 4, 4)))


def inside(name):
    return Counted(INSIDE[name]()) if name in INSIDE else exact()


def worse(inner):
    """Another model like it."""
    if inner.shape == (2, 4, 4):
        return exact()
    return Counted(ten(Ten(factor=0.5)).to(dtype=inner.dtype))


def made(inner, name, options=None):
    needed = NEEDS[name](inner) if name in NEEDS else {}
    return guide(inner, name, **needed, **(options or {}))


def told(name, labels):
    negative = {"negative_class_labels": labels.flip(0)} if name in WITH_NEGATIVE else {}
    return {"class_labels": labels, **negative}


def suited_plans(model):
    """Some plans, without those that are refused."""
    plans = []
    for sampler in ("heun", "euler", "euler_ancestral", "dpmpp_2m_sde"):
        with contextlib.suppress(ValueError):
            plans.append(kdiff.plan(model, sampler, steps=3))
    assert plans
    return plans


def last_of(model, plan, cond):
    ((_, states),) = kdiff.run(model, plan, [3, 4], dtype=torch.float64, cond=cond)
    *_, last = states
    return last


def pictures(model):
    numbers = torch.linspace(-3, 5, 2 * math.prod(model.shape), dtype=torch.float64)
    return numbers.reshape(2, *model.shape)


def called(model, sigma, cond=None):
    """D, in the first step of a run if it must know the step."""
    step = {"step": Step(0, sigma, sigma / 2)} if model.knows_step else {}
    return model(pictures(model), sigma, **(cond or told(model.guidance.name, LABELS)), **step)


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
        claimed = len(LABELS) * model.evaluations(2.0)
        # They do not know that without its class a negative one stays what it is.
        assert rows == claimed or (rows < claimed and {other, name} & WITH_NEGATIVE)


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
        assert last.x.isfinite().all() and last.nfe == network_nfe(model, plan)
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
