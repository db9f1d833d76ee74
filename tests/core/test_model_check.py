"""What the health check can know: sound models of unusual data, unsound ones of usual data."""

import json
import math

import numpy as np
import pytest
import torch

import kdiff
from kdiff.model_check import health, not_finite

SHAPE = (1, 8, 8)


def digits(n=32):
    """Black pictures with a bright stroke: their mean is -0.8."""
    generator = np.random.default_rng(0)
    pictures = np.zeros((n, 8, 8, 3), np.uint8)
    for picture in pictures:
        column, start = generator.integers(1, 7), generator.integers(0, 3)
        picture[start : start + 5, column] = 255
    return pictures


def clean(pictures):
    return torch.from_numpy(pictures).double().permute(0, 3, 1, 2)[:, :1] / 127.5 - 1


def exact(data, std=0.02):
    """D of exactly these data, each with a little spread."""
    mixture = kdiff.analytic.GaussianMixture(
        data.flatten(1), torch.full((len(data),), std, dtype=torch.float64)
    )
    return lambda x, sigma: mixture(x.flatten(1).double(), sigma).reshape(x.shape).to(x.dtype)


def wrapped(denoise, prediction, shape=SHAPE, error=0.0, **settings):
    """The network of that prediction behind D, but for an error."""
    process = kdiff.precond(prediction, **{k: settings[k] for k in settings if k[:5] == "alpha"})
    levels = np.geomspace(1e-4, 3e6, 20_000)
    clocks = np.array([process(s).c_noise for s in levels])
    order = np.argsort(clocks, kind="stable")

    def network(x, t):
        if process.sigmas:
            sigma = math.exp(
                np.interp(float(t[0]), range(len(process.sigmas)), np.log(process.sigmas))
            )
        else:
            sigma = math.exp(np.interp(float(t[0]), clocks[order], np.log(levels[order])))
        c = process(sigma)
        x = x.double() / c.c_in
        return (denoise(x, sigma) - c.c_skip * x) / c.c_out + error

    return kdiff.wrap(network, prediction, shape=shape, **settings)


@pytest.mark.parametrize("prediction", ["flow", "edm", "eps", "v", "x0", "denoised"])
def test_a_sound_model_of_digits_is_not_blamed(prediction):
    """On noise alone, which is grey, its error is 16 times a guess's: it answers with digits."""
    model = wrapped(exact(clean(digits())), prediction)
    alone = health(model)
    assert alone.noise.ratio > 10
    assert alone.status == "unknown" and "noise alone cannot tell" in alone.verdict
    assert health(model, digits(8)).status == "good"


@pytest.mark.parametrize("scale", [0.5, 4.0])
@pytest.mark.parametrize("prediction", ["eps", "v", "edm", "flow"])
def test_nor_one_of_points_on_a_circle(prediction, scale):
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    points = scale * torch.stack([angles.cos(), angles.sin()], 1)
    for error in (0.0, 0.05):  # of a small network
        found = health(wrapped(exact(points), prediction, shape=(2,), error=error))
        assert found.status == "unknown", found.verdict


def test_a_consistency_model_is_never_good():
    """It answers with a sample: the end of the ODE, here of N(0, 0.5^2)."""
    model = kdiff.wrap(
        lambda x, s: x * 0.5 / math.hypot(0.5, float(s[0])), "denoised", shape=(3, 8, 8)
    )
    alone = health(model)
    assert alone.noise.ratio <= 1 and alone.status == "unknown"
    noise = np.random.default_rng(0).normal(127.5, 64, (8, 8, 8, 3))
    assert health(model, np.clip(noise, 0, 255).astype(np.uint8)).status == "bad"


@pytest.mark.parametrize(("told", "is_"), [("eps", "v"), ("eps", "x0"), ("flow", "eps")])
def test_an_error_in_proportion_to_the_noise_is_certainly_wrong(told, is_):
    """Even for digits, where no reading beats the guess. The error of a flow is bounded, so it is
    not certain."""
    network = wrapped(exact(clean(digits())), is_).network.f
    found = health(kdiff.wrap(network, told, shape=SHAPE))
    assert found.status == ("bad" if told == "eps" else "unknown"), found.verdict


@pytest.mark.parametrize(
    ("settings", "status"),
    [({}, "good"), ({"sigma_max": 1e6}, "doubtful"), ({"sigma_max": 500}, "doubtful")],
)
def test_the_level_at_which_schedules_begin_is_tested(settings, status):
    """Of a network whose eps is off by 0.006."""
    model = wrapped(exact(clean(digits())), "eps", error=0.006, alphas_cumprod="cosine", **settings)
    found = health(model, digits(8))
    assert found.sigmas == [0.05, 0.2, 1, 5, 20, model.sigma_max]
    assert found.status == status, found.verdict
    assert "where schedules begin" in found.verdict and "sigma_max=" in found.verdict
    alone = health(model)
    assert alone.status == "unknown"
    assert ("where schedules begin" in alone.verdict) == (status == "doubtful")


def test_schedules_of_timesteps_may_begin_higher():
    alphas = [0.99, 0.9, 0.5, 1e-3, 2.0**-40]
    found = health(wrapped(exact(clean(digits())), "v", alphas_cumprod=alphas))
    assert found.sigmas[-1] == pytest.approx(2**20) and found.status == "unknown"


def test_what_is_not_finite_is_named():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.Conv2d(4, 1, 1))
    model = kdiff.wrap(lambda x, t: network(x), "flow", shape=SHAPE)
    model.network.layers = network
    model.network.register_buffer("mask", torch.full((3,), -math.inf))
    assert not_finite(model.network) == []
    network[1].register_parameter(
        "small", torch.nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False)
    )
    assert not_finite(model.network) == []
    network[1].bias.data.fill_(math.nan)
    network[0].weight.data[1] = math.inf
    found = health(model)
    assert found.status == "bad"
    assert found.verdict == (
        "its weights are not finite, in 2 tensors: layers.0.weight, layers.1.bias"
    )
    assert set(found.record()["noise"]["model"]) == {"nan"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_not_finite(value):
    weight = torch.nn.Linear(1, 1)
    for network, more in ((lambda x, t: x * value, ""), (weight, ", though its weights are")):
        model = kdiff.wrap(network, "flow", shape=(3, 8, 8))
        weight.forward = lambda x, t: x * value
        found = health(model)
        assert (found.status, found.verdict) == ("bad", f"what it answers is not finite{more}")
        json.dumps(found.record(), allow_nan=False)
