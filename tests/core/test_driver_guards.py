"""What would be silently wrong: networks that write where they should not, noise and labels of
another batch, networks in training mode, results that overflow."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import kdiff
from kdiff.latent import LatentDenoiser
from kdiff.lockstep import lockstep
from kdiff.samplers import REGISTRY

MEAN = torch.tensor([0.5, -1.0, 2.0])
EXACT = kdiff.analytic.gaussian(MEAN)
SIGMAS = [8.0, 3.0, 1.0, 0.3, 0.0]
SHAPE = {"shape": (3,), "sigmas": SIGMAS}


class OneBuffer:
    """Answers into the same memory each time, as compiled networks with CUDA graphs do."""

    def __init__(self, view: bool):
        self.buffer, self.view = torch.zeros(4, 3), view

    def __call__(self, x, sigma):
        answer = self.buffer[: len(x)]
        answer.copy_(EXACT(x, sigma))
        return answer if self.view else answer.detach()


def in_place(x, sigma):
    """Overwrites what it is given, and returns it."""
    return x.copy_(EXACT(x.clone(), sigma))


WRITERS = {
    "a view of one buffer": OneBuffer(view=True),
    "one buffer": OneBuffer(view=False),
    "in place": in_place,
}


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("network", WRITERS.values(), ids=WRITERS)
def test_a_network_may_write_into_its_answers_and_into_x(network, name):
    for deterministic in (False, True):
        arguments = {"n": 3, "batch": 2, "deterministic": deterministic, **SHAPE}
        if deterministic and isinstance(network, OneBuffer):
            arguments["n"], network.buffer = 20, torch.zeros(16, 3)  # two calls a batch
            arguments["batch"] = 20
        expected = kdiff.sample(EXACT, name, **arguments)
        assert torch.equal(kdiff.sample(network, name, **arguments), expected)


def test_the_states_of_a_network_with_one_buffer_stay_as_they_were():
    plan = kdiff.plan(sampler="dpmpp_3m", sigmas=SIGMAS)
    x, noise = 8 * torch.ones(2, 3), kdiff.Noise([0, 1], (3,))
    states = [list(kdiff.drive(d, plan, x, noise)) for d in (EXACT, OneBuffer(True))]
    for state, expected in zip(*states, strict=True):
        assert torch.equal(state.denoised, expected.denoised)
        assert torch.equal(state.x, expected.x)
    assert torch.equal(x, 8 * torch.ones(2, 3))


@pytest.mark.parametrize("network", WRITERS.values(), ids=WRITERS)
def test_plans_in_lockstep_share_answers_that_nobody_overwrites(network):
    plans = [kdiff.plan(sampler=name, sigmas=SIGMAS) for name in ("heun", "dpmpp_2m", "euler")]
    (expected,) = lockstep(EXACT, plans, range(2), shape=(3,))
    (found,) = lockstep(network, plans, range(2), shape=(3,))
    assert found.computed == expected.computed < found.asked
    for a, b in zip(found.outcomes, expected.outcomes, strict=True):
        assert torch.equal(a.x, b.x)


def test_an_identity_network():
    assert torch.equal(kdiff.sample(lambda x, sigma: x, "heun", **SHAPE), start())


def start(n: int = 1) -> torch.Tensor:
    return 8 * kdiff.Noise(range(n), (3,)).initial()


def test_an_answer_in_another_dtype_is_taken_in_the_solvers():
    """In bfloat16, a coefficient times the answer would be rounded to 3 digits."""

    def answer_in(dtype):
        return lambda x, sigma: EXACT(x, sigma).bfloat16().to(dtype)

    expected = kdiff.sample(answer_in(torch.float32), "dpmpp_2m", **SHAPE)
    for dtype in (torch.bfloat16, torch.float64):
        found = kdiff.sample(answer_in(dtype), "dpmpp_2m", **SHAPE)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def drive(sampler: str, x: torch.Tensor, noise: kdiff.Noise, **options) -> torch.Tensor:
    plan = kdiff.plan(sampler=sampler, sigmas=SIGMAS, options=options)
    *_, last = kdiff.drive(EXACT, plan, x, noise)
    return last.x


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde"])
@pytest.mark.parametrize("noise", [kdiff.Noise([0], (3,)), kdiff.Noise([0, 1], (1,))])
def test_noise_of_another_batch_or_shape_is_refused(sampler, noise):
    with pytest.raises(ValueError, match=r"the noise is \([12], [13]\), and x \(2, 3\)"):
        drive(sampler, start(2), noise)


def test_noise_that_is_not_drawn_may_be_of_any_shape():
    assert drive("euler", start(2), kdiff.Noise([0], (1,))).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_x_of_another_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="x must be of a floating-point dtype, not torch"):
        drive("euler", torch.ones(1, 3, dtype=dtype), kdiff.Noise([0], (3,)))


def test_gradients_are_not_followed():
    """Gradients through the sampler's arithmetic, but not the network, would be wrong."""
    x = start().requires_grad_()
    assert not drive("dpmpp_2m", x, kdiff.Noise([0], (3,))).requires_grad


def test_a_result_that_is_not_finite_is_an_error():
    """Every answer is finite, but the sampler leaves the range of float16."""
    x, noise = torch.full((1, 3), 3e4, dtype=torch.float16), kdiff.Noise([0], (3,))
    message = "lms left the range of float16, though the model's output was finite"
    plan = kdiff.plan(sampler="lms", sigmas=[4.0, 3.0, 1e-3])
    answers = iter([6e4, -6e4])
    with pytest.raises(kdiff.NonFiniteError, match=message):
        list(kdiff.drive(lambda x, s: torch.full_like(x, next(answers)), plan, x, noise))


def test_a_sampler_that_asks_less_often_than_it_declares_ends_when_it_ends():
    def lazy(x, sigmas):
        x = yield x, sigmas[0]
        return x

    plan = kdiff.plan(sampler="euler", sigmas=[2.0, 1.0, 0.0])
    sampler = kdiff.Sampler("lazy", lazy, lambda options: 1, "none")
    plan = kdiff.Plan(sampler, {}, plan.sigmas, "given")
    first, last = kdiff.drive(EXACT, plan, start(), kdiff.Noise([0], (3,)))
    assert plan.nfe == first.nfe == last.nfe == 1 and sampler.nfe(2) == 2  # what it claims
    assert torch.equal(last.x, first.denoised)


# --- networks ---


class Quantised(nn.Module):
    """Its first parameter is whole numbers, as of bitsandbytes' layers."""

    def __init__(self, *dtypes):
        super().__init__()
        parts = [nn.Parameter(torch.ones(2).to(d), requires_grad=False) for d in dtypes]
        self.parts = nn.ParameterList(parts)
        self.seen = None

    def forward(self, x, t):
        self.seen = x.dtype
        return x


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.uint8, torch.float16], torch.float16),
        ([torch.int8, torch.float8_e4m3fn, torch.float32], torch.float32),
        ([torch.uint8], torch.float64),
        ([], torch.float64),
    ],
)
def test_x_is_never_cast_to_whole_numbers(dtypes, expected):
    network = Quantised(*dtypes)
    model = kdiff.wrap(network, "denoised", shape=(3,))
    x = torch.full((1, 3), 0.3, dtype=torch.float64)
    torch.testing.assert_close(model(x, 1.0), x, rtol=1e-3, atol=0)
    assert network.seen == expected


class Autoencoder(Quantised):
    config = SimpleNamespace(scaling_factor=0.5, shift_factor=None)

    def decode(self, z, return_dict):
        return (self(z, None),)


def test_latents_are_never_cast_to_whole_numbers():
    vae = Autoencoder(torch.uint8, torch.float32)
    network = nn.Identity()
    model = LatentDenoiser(network, "denoised", shape=(3,), vae=vae)
    assert torch.equal(model.decode(torch.full((2, 3), 0.3), np.int64(1)), torch.full((2, 3), 0.6))
    with pytest.raises(ValueError, match="batch must be a whole number"):
        model.decode(torch.zeros(2, 3), True)


def test_a_network_in_training_mode_is_told_of():
    """As it is between two epochs, although `wrap` has put it into evaluation mode."""
    network = nn.Sequential(nn.Dropout(0.5))
    model = kdiff.wrap(lambda x, t: x, "denoised", shape=(3,))
    wrapped = kdiff.wrap(Quantised(), "denoised", shape=(3,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kdiff.sample(model, steps=1)
        kdiff.sample(wrapped, steps=1)
        wrapped.network.f.train()
        with pytest.raises(UserWarning, match="in training mode"):
            kdiff.sample(wrapped, steps=1)
    with pytest.warns(UserWarning, match="in training mode"):
        kdiff.sample(Bare(network), steps=1, sigma_min=0.1, sigma_max=9, shape=(3,))


class Bare(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, sigma):
        return self.network(x)


@pytest.mark.parametrize("number", [np.float32, torch.tensor, int])
def test_sigma_is_one_number_of_any_library(number):
    model = kdiff.wrap(lambda x, t: x, "edm", shape=(3,))
    x = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(model(x, number(2.0)), model(x, 2.0))
    for wrong in (torch.ones(1), "2", -1.0, 0.0, float("nan")):
        with pytest.raises(ValueError, match="sigma must be"):
            model(x, wrong)


# --- labels ---


@pytest.mark.parametrize("labels", [[1.0, 2.0], torch.tensor([True, False])])
@pytest.mark.parametrize("classes", [0, 3])
def test_labels_that_are_no_whole_numbers(labels, classes):
    """A row of numbers is a one-hot row to networks: two of them would pass for one."""
    model = kdiff.wrap(lambda x, t, class_labels=None: x, shape=(3,), classes=classes)
    with pytest.raises(ValueError, match="class_labels must be whole numbers"):
        kdiff.sample(model, steps=1, n=2, class_labels=labels)


def test_one_label_for_many_samples_is_not_spread_over_them():
    model = kdiff.wrap(lambda x, t, class_labels=None: x, shape=(3,), classes=3)
    with pytest.raises(ValueError, match="class_labels must have one row for each of the 2"):
        model(torch.zeros(2, 3), 1.0, class_labels=torch.tensor([1]))


def test_a_seed_may_come_twice_with_two_classes():
    """From the same noise, which is how to compare classes."""

    def network(x, t, class_labels):
        return x + class_labels[:, None]

    model = kdiff.wrap(network, "flow", shape=(3,), classes=3)
    x = kdiff.sample(model, "euler", steps=2, seeds=[5, 5], class_labels=[0, 2])
    alone = [kdiff.sample(model, "euler", steps=2, seed=5, class_labels=[c]) for c in (0, 2)]
    assert torch.equal(x, torch.cat(alone)) and not torch.equal(x[0], x[1])
