"""kdiff.wrap: the exact networks of a Gaussian, in every convention, give its exact denoiser."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import kdiff

MEAN, STD, SHAPE = 0.3, 0.6, (2, 3)
EXACT = kdiff.analytic.gaussian(torch.full(SHAPE, MEAN, dtype=torch.float64), STD)
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHA = (1 - BETAS).cumprod(0).sqrt()  # x_t = ALPHA[t] x0 + GAMMA[t] n
GAMMA = (1 - ALPHA**2).sqrt()


def noisy():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64)


def posterior_mean(x, scale, noise):
    """E[x0 | x] for x = scale x0 + noise n."""
    gain = scale * STD**2 / (scale**2 * STD**2 + noise**2)
    return MEAN + gain * (x - scale * MEAN)


def discrete(prediction):
    def network(x, t):
        t = t.long()
        assert t.shape == (len(x),) and (t == t[0]).all()
        a, g = float(ALPHA[t[0]]), float(GAMMA[t[0]])
        x0 = posterior_mean(x, a, g)
        n = (x - a * x0) / g
        return {"eps": n, "v": a * n - g * x0, "x0": x0}[prediction]

    return network


def flow(x, t):
    t = float(t[0])
    x0 = posterior_mean(x, 1 - t, t)
    return (x - (1 - t) * x0) / t - x0


def agrees(model, sigma):
    x = noisy() * math.hypot(sigma, STD) + MEAN
    torch.testing.assert_close(model(x, sigma), EXACT(x, sigma), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0, 10, 500, 999])
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("given", ["betas", "alphas_cumprod", "default"])
def test_discrete_networks(prediction, given, t):
    settings = {
        "betas": {"betas": BETAS},
        "alphas_cumprod": {"alphas_cumprod": (ALPHA**2).tolist()},
        "default": {},
    }[given]
    model = kdiff.wrap(discrete(prediction), prediction, shape=SHAPE, round=True, **settings)
    agrees(model, float(GAMMA[t] / ALPHA[t]))
    assert len(model.sigmas) == 1000


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 200.0])
def test_flow_in_both_directions_and_on_any_clock(sigma):
    agrees(kdiff.wrap(flow, "flow", shape=SHAPE), sigma)
    agrees(kdiff.wrap(lambda x, t: flow(x, t / 1000), "flow", shape=SHAPE, time_scale=1000), sigma)
    reverse = kdiff.wrap(lambda x, t: -flow(x, 1 - t), "flow", shape=SHAPE, data_at=1)
    agrees(reverse, sigma)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
def test_a_denoiser_is_one_already(sigma):
    model = kdiff.wrap(lambda x, s: EXACT(x, float(s[0])), "denoised", shape=SHAPE)
    agrees(model, sigma)
    assert (model.sigma_min, model.sigma_max) == (0.002, 80.0)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0, 80.0])
def test_the_raw_network_of_edm(sigma):
    def raw(x, c_noise):
        s, d = math.exp(4 * float(c_noise[0])), 0.7
        total = math.hypot(s, d)
        x = x * total
        return (EXACT(x, s) - (d / total) ** 2 * x) * total / (s * d)

    agrees(kdiff.wrap(raw, "edm", sigma_data=0.7, shape=SHAPE), sigma)


def test_the_sampled_gaussian_has_its_moments():
    model = kdiff.wrap(discrete("v"), "v", shape=SHAPE, round=True)
    x = kdiff.sample(model, "heun", steps=20, n=300, dtype=torch.float64)
    assert abs(float(x.mean()) - MEAN) < 0.05 and abs(float(x.std()) - STD) < 0.05


@pytest.mark.parametrize("kind", ["tensor", "sample", "tuple", "list"])
def test_what_a_network_may_answer_with(kind):
    shapes = {
        "tensor": lambda y: y,
        "sample": lambda y: SimpleNamespace(sample=y),
        "tuple": lambda y: (y, None),
        "list": lambda y: [y],
    }
    model = kdiff.wrap(lambda x, t: shapes[kind](flow(x, t)), "flow", shape=SHAPE)
    agrees(model, 1.0)


def test_another_answer_is_refused():
    model = kdiff.wrap(lambda x, t: {"out": x}, shape=SHAPE)
    with pytest.raises(ValueError, match="answered with dict, not a tensor"):
        model(noisy(), 1.0)


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.conv = nn.Conv2d(3, 3, 3).double()
        self.seen = None

    def forward(self, x, t, y=None):
        self.seen = y
        return x + self.weight


LABELS = torch.tensor([0, 2, -1])


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"labels": "y", "null_class": -1}, [0, 2, -1]),
        ({"labels": None, "null_class": -1}, [0, 2, -1]),
        ({"labels": "y", "null_class": 3}, [0, 2, 3]),
        ({"labels": "y", "one_hot": True}, [[1.0, 0, 0], [0, 0, 1], [0, 0, 0]]),
    ],
)
def test_class_labels_as_the_network_wants_them(settings, expected):
    network = Labelled()
    model = kdiff.wrap(network, shape=(3, 4, 4), classes=3, **settings)
    model(torch.zeros(3, 3, 4, 4), 1.0, class_labels=LABELS)
    assert network.seen.tolist() == expected
    assert model.classes == ("0", "1", "2")
    model(torch.zeros(3, 3, 4, 4), 1.0)  # without labels, all are of no class
    assert network.seen.tolist() == 3 * [expected[-1]]


def test_labels_reach_a_network_whose_classes_nobody_named():
    network = Labelled()
    model = kdiff.wrap(network, shape=(3, 4, 4), labels="y")
    kdiff.sample(model, steps=1, class_labels=[7])
    assert network.seen.tolist() == [7]


def test_no_class_without_a_null_class():
    model = kdiff.wrap(Labelled(), shape=(3, 4, 4), classes=3, labels="y")
    with pytest.raises(ValueError, match="no null_class was given"):
        kdiff.sample(model, steps=1, n=2, class_labels=[0, -1])
    kdiff.sample(model, steps=1, class_labels=-torch.ones(1, 3))  # rows are not indices


def test_a_module_keeps_its_layout_and_moves_with_the_denoiser():
    network = Labelled()
    model = kdiff.wrap(network, shape=(3, 4, 4))
    assert network.conv.weight.is_contiguous() and not network.training
    assert model.dtype == torch.float64
    assert model.to(dtype=torch.float32) is model and network.weight.dtype == torch.float32


def test_timesteps_are_whole_numbers_only_if_asked_for():
    seen = []

    def network(x, t):
        seen.append(t)
        return x

    for round_ in (False, True):
        kdiff.wrap(network, shape=SHAPE, round=round_)(noisy(), 0.567)
    assert seen[0].is_floating_point() and float(seen[0][0]) % 1 > 0
    assert seen[1].dtype == torch.int64


@pytest.mark.parametrize(
    "settings, error, text",
    [
        ({"prediction": "noise"}, ValueError, "unknown preconditioner 'noise'"),
        ({"betas": [0.1, 0.2], "alphas_cumprod": "linear"}, ValueError, "not both"),
        ({"one_hot": True}, ValueError, "needs classes"),
        ({"betas": [0.1, -0.2]}, ValueError, "decreases strictly"),
        ({"prediction": "edm", "betas": [0.1, 0.2]}, TypeError, "alphas_cumprod"),
        ({"prediction": "flow", "data_at": 2}, ValueError, "data_at must be 0 or 1"),
        ({"shape": 32}, ValueError, "shape must be whole numbers"),
        ({"shape": "3,8,8"}, ValueError, "shape must be whole numbers"),
        ({"classes": "cat"}, ValueError, "a list of names or their number"),
    ],
)
def test_settings_that_make_no_sense(settings, error, text):
    with pytest.raises(error, match=text):
        kdiff.wrap(flow, **{"shape": SHAPE, **settings})


def test_every_prediction_takes_a_range_of_noise_levels():
    model = kdiff.wrap(flow, "v", alphas_cumprod="cosine", sigma_max=80, shape=SHAPE)
    assert (model.sigma_min, model.sigma_max) == (model.sigmas[0], 80)


def test_samples_without_axes():
    model = kdiff.wrap(lambda x, t: 0.1 * x, "eps", shape=())
    assert kdiff.sample(model, "euler", steps=2, n=3).shape == (3,)


def test_an_answer_without_axes():
    model = kdiff.wrap(lambda x, t: x[:, 0], "eps", shape=(2,))
    with pytest.raises(ValueError, match=r"must answer with \(1, 2\), not \(1,\)"):
        kdiff.sample(model, "euler", steps=2)
