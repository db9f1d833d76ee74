"""What can be sampled: denoisers, functions, and models around a model."""

import copy
import pickle

import pytest
import torch

import kdiff
from exact_models import Pointwise
from kdiff.driver import isolated
from kdiff.guidance import guide
from kdiff.model import Bare, Wrapper, as_model, network_nfe
from kdiff.sampling import FixedBatch

SAID = ["name", "shape", "classes", "sigma_min", "sigma_max", "sigmas", "sigma_end"]
MEMBERS = [*SAID, "device", "dtype", "memory_format", "decode", "evaluations", "record"]


def network(x, c_noise, class_labels=None):
    return 0.3 * x


def denoiser() -> kdiff.Denoiser:
    return kdiff.wrap(network, "v", shape=(3,), classes=4)


class Shifted(Wrapper):
    """A wrapper as a user would write it."""

    def __call__(self, x, sigma, /, **cond):
        return self.model(x, sigma, **cond) + 1


MODELS = {
    "denoiser": denoiser,
    "function": lambda: as_model(network),
    "object": lambda: as_model(Pointwise()),
    "module": lambda: as_model(torch.nn.Identity()),
    "wrapper": lambda: Shifted(denoiser()),
    "twice": lambda: Shifted(Shifted(denoiser())),
    "guided": lambda: guide(denoiser(), "cfg"),
    "isolated": lambda: isolated(denoiser()),
    "fixed": lambda: FixedBatch(isolated(denoiser())),
    "exact": lambda: as_model(kdiff.analytic.gaussian(torch.zeros(3))),
}


@pytest.mark.parametrize("kind", MODELS)
def test_it_has_all_that_a_model_has(kind):
    model = MODELS[kind]()
    assert callable(model) and as_model(model) is model
    for member in MEMBERS:
        assert hasattr(model, member), member
    assert isinstance(model.name, str) and isinstance(model.device, torch.device)
    assert isinstance(model.memory_format, torch.memory_format)
    assert model.evaluations(1.0) == (2 if kind == "guided" else 1)
    assert model.record().keys() >= {"name", "sha256"}
    x = torch.ones(2, 3)
    assert torch.equal(model.decode(x), x)


def test_what_a_function_does_not_say():
    model = as_model(lambda x, sigma: x)
    assert isinstance(model, Bare)
    unsaid = (model.shape, model.sigma_min, model.sigma_max, model.sigmas, model.dtype)
    assert unsaid == (None,) * 5 and model.classes == ()
    assert model.record() == {"name": "unnamed", "sha256": None}
    with pytest.raises(AttributeError):
        model.sigma_data  # noqa: B018


def test_what_a_function_says_counts():
    def f(x, sigma):
        return x

    f.shape, f.sigma_min, f.sigma_max, f.name = (5,), 0.1, 9.0, "five"
    f.decode = lambda x: x / 2
    states = []
    assert kdiff.sample(f, "euler", steps=2, callback=states.append).shape == (1, 5)
    assert states[0].sigma == pytest.approx(9.0)
    assert as_model(f).record()["name"] == "five"
    assert as_model(f).decode(4.0) == 2.0


@pytest.mark.parametrize("wrong", [None, 3, "cifar10", torch.zeros(1)])
def test_what_cannot_be_called_is_not_a_model(wrong):
    with pytest.raises(TypeError, match=r"a model must be a function of \(x, sigma\), not"):
        kdiff.sample(wrong, "euler", sigmas=[1, 0], shape=(1,))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
@pytest.mark.parametrize("kind", MODELS)
def test_it_can_be_copied_and_sent_to_another_process(kind, again):
    model = MODELS[kind]()
    assert again(model).record() == model.record()


def test_a_wrapper_passes_on_what_it_does_not_change():
    inner = denoiser()
    model = Shifted(inner)
    for member in SAID:
        assert getattr(model, member) == getattr(inner, member)
    assert model.network is inner.network and model.to(dtype=torch.float64) is model
    with pytest.raises(AttributeError):
        model.no_such_thing  # noqa: B018
    x = torch.ones(2, 3)
    assert torch.equal(model(x, 1.0), inner(x, 1.0) + 1)
    sampled = [kdiff.sample(m, "euler", steps=1) for m in (model, inner)]
    torch.testing.assert_close(sampled[0], sampled[1] + 1)


def test_evaluations_are_summed_over_the_levels():
    class AboveOne(Shifted):
        """Costs three evaluations above sigma = 1, as interval guidance does."""

        def evaluations(self, sigma, /):
            return 3 if sigma > 1 else 1

    plan = kdiff.plan(sampler="heun", sigmas=[8.0, 2.0, 0.5, 0.0])  # asks at 8 2 2 .5 .5
    model, states = AboveOne(denoiser()), []
    assert network_nfe(model, plan) == 11
    kdiff.sample(model, "heun", sigmas=plan.sigmas, callback=states.append)
    assert [s.nfe for s in states] == [3, 6, 9, 10, 11, 11]
    assert [s.asks for s in states] == [1, 2, 3, 4, 5, 5]
