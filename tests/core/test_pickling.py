"""What `spawn` sends between processes comes out the same, to the bit."""

import multiprocessing
import pickle

import pytest
import torch
from torch import nn

import kdiff
from kdiff.analytic import data_set, gaussian
from kdiff.latent import LatentDenoiser
from kdiff.preconditioners import PRECONDS
from kdiff.samplers import REGISTRY
from spawned import last

SIGMAS = [0.0021, 0.3, 7.5, 79.0]
SETTINGS = [
    *({"name": name} for name in PRECONDS),
    {"name": "edm", "sigma_data": 0.7},
    {"name": "vp", "beta_d": 15.0, "steps": 100},
    {"name": "eps", "alphas_cumprod": "cosine", "steps": 50, "round": True},
    {"name": "flow", "time_scale": 1000.0, "data_at": 1},
]


def again(thing):
    return pickle.loads(pickle.dumps(thing))


def predict(x, t, class_labels=None):
    return x * 0.3 + t[:, None, None, None] * 1e-3


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t, class_labels=None):
        return self.conv(x)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_preconditioner(settings):
    made = kdiff.precond(**settings)
    copy = again(made)
    assert [copy(s) for s in SIGMAS] == [made(s) for s in SIGMAS]
    assert copy.config == made.config and copy.sigmas == made.sigmas


@pytest.mark.parametrize("name", REGISTRY)
def test_a_plan_with_any_sampler(name):
    plan = kdiff.plan(gaussian(torch.zeros(2)), name, steps=4)
    copy = again(plan)
    assert copy == plan and copy.sampler is REGISTRY[name]


def test_a_sampler_that_is_not_registered_is_pickled_as_it_is():
    own = kdiff.Sampler("mine", kdiff.samplers.resolve, max, "no paper")
    assert again(own) == own


MODELS = {
    "wrapped function": lambda: kdiff.wrap(predict, "v", shape=(3, 4, 4), round=True),
    "wrapped module": lambda: kdiff.wrap(Network(), "eps", shape=(3, 4, 4), classes=3),
    "convolutions": lambda: kdiff.Denoiser(Network(), "edm", shape=(3, 4, 4)),
    "mixture": lambda: data_set(torch.randn(5, 3, 4, 4, generator=torch.Generator())),
    "latent": lambda: LatentDenoiser(Network(), "eps", shape=(3, 4, 4), vae=nn.Conv2d(3, 3, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_makes_the_same_samples(name):
    model = MODELS[name]()
    copy = again(model)
    assert vars(copy).keys() == vars(model).keys()
    torch.testing.assert_close(
        kdiff.sample(copy, n=2, steps=3), kdiff.sample(model, n=2, steps=3), rtol=0, atol=0
    )


def test_a_spawned_process_makes_the_samples_of_this_one():
    model, plan = kdiff.load("cifar10"), kdiff.plan(kdiff.load("cifar10"), "heun", steps=2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply_async(last, (model, plan, torch.get_num_threads())).get(timeout=300)
    assert torch.equal(theirs, last(model, plan, torch.get_num_threads()))
