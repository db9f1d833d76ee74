"""Every registered guidance: a model that suits it, settings of interest, and how it is called."""

import contextlib
import math
from dataclasses import dataclass

import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.guidance import GUIDANCE, Step, guide
from kdiff.model import Wrapper, as_model
from small_networks import Network

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
    "classifier": [{"scale": 0.0}, {"conditional": False}],
    "classifier_mean_shift": [{"scale": 0.0}],
    "loss": [{"scale": 0.0}],
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
    "classifier": lambda inner: {"classifier": Logits(len(inner.classes))},
    "classifier_mean_shift": lambda inner: {"classifier": Logits(len(inner.classes))},
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


@dataclass(frozen=True)
class Logits:
    """A classifier: some smooth numbers for each class."""

    n: int

    def __call__(self, x, sigma):
        places = torch.linspace(-1, 1, self.n, dtype=x.dtype)
        return -((x.flatten(1).mean(1, keepdim=True) / (1 + sigma) - places) ** 2)


def squares(d):
    return d.flatten(1).square().sum(1)


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
