"""The driver: batches, states, threads, and models that fail."""

import re
import threading

import pytest
import torch

import kdiff
from exact_models import GAUSSIAN, relative
from kdiff.networks import SongUNet
from small_networks import Network

SAMPLERS = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]


@pytest.fixture(scope="module")
def model() -> kdiff.Denoiser:
    return kdiff.Denoiser(Network().eval(), "edm", shape=(3, 8, 8))


# --- seeds and batches ---


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "euler_ancestral"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_seed_gives_its_sample_in_any_batch(model, sampler, deterministic):
    labels = torch.arange(64) % 10
    *others, all_ = (
        kdiff.sample(
            model,
            sampler,
            n=64,
            batch=batch,
            steps=5,
            deterministic=deterministic,
            class_labels=labels,
        )
        for batch in (1, 16, 24, 64)
    )
    for other in others:
        assert relative(other, all_) < 1e-5
        if deterministic:
            assert torch.equal(other, all_)
    assert relative(all_[1:], all_[:-1]) > 0.1


def test_deterministic_gives_the_network_one_batch_shape(model):
    shapes = []

    def watched(x, sigma, class_labels):
        shapes.append((tuple(x.shape), tuple(class_labels.shape)))
        assert torch.equal(class_labels[:3], torch.tensor([4, 5, 6]))
        return model(x, sigma, class_labels=class_labels)

    options = {"sigmas": [9, 1, 0], "shape": (3, 8, 8), "class_labels": [4, 5, 6]}
    kdiff.sample(watched, n=3, deterministic=True, **options)
    assert shapes == [((16, 3, 8, 8), (16,))] * 2


# --- states ---


def test_every_evaluation_is_a_state():
    """Heun on 8 -> 4 -> 1 -> 0: steps 0 0 1 1 2, then the result."""
    plan = kdiff.plan(GAUSSIAN, "heun", sigmas=[8, 4, 1, 0])
    x = torch.full((2, 3), 8.0)
    states = list(kdiff.drive(GAUSSIAN, plan, x, kdiff.Noise([0, 1], (3,))))
    assert [s.step for s in states] == [0, 0, 1, 1, 2, 3]
    assert [s.sigma for s in states] == [8, 4, 4, 1, 1, 0]
    assert [s.nfe for s in states] == [1, 2, 3, 4, 5, 5]
    assert torch.equal(states[0].x, x)
    for state in states[:-1]:
        assert torch.equal(state.denoised, GAUSSIAN(state.x, state.sigma))
    assert torch.equal(states[-1].denoised, states[-2].denoised)
    torch.testing.assert_close(states[-1].x, states[-1].denoised)


def test_a_callback_sees_them_too():
    states = []
    x = kdiff.sample(GAUSSIAN, "plms", n=3, batch=2, steps=4, callback=states.append)
    assert [s.nfe for s in states] == [1, 2, 3, 4, 5, 5] * 2
    assert [len(s.x) for s in states] == [2] * 6 + [1] * 6
    assert torch.equal(x, torch.cat([states[5].x, states[11].x]))


def test_a_state_is_not_changed_by_what_follows():
    plan = kdiff.plan(GAUSSIAN, "dpmpp_2m_sde", steps=5)
    kept = []
    for state in kdiff.drive(GAUSSIAN, plan, torch.ones(1, 3), kdiff.Noise([0], (3,))):
        kept.append((state.x, state.x.clone(), state.denoised, state.denoised.clone()))
    for x, x_then, d, d_then in kept:
        assert torch.equal(x, x_then)
        assert torch.equal(d, d_then)


def test_the_network_is_run_without_gradients(model):
    assert not kdiff.sample(model, steps=2).requires_grad


# --- a model that fails ---


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("sampler", "evaluation", "step", "sigma"),
    [
        ("euler", 1, 1, "8"),
        ("euler", 3, 3, "0.25"),
        ("heun", 2, 1, "1"),
        ("heun", 3, 2, "1"),
        ("heun", 5, 3, "0.25"),
        ("plms", 3, 2, "1"),
    ],
)
def test_a_model_that_breaks_down(sampler, evaluation, step, sigma, bad):
    calls = 0

    def failing(x, s):
        nonlocal calls
        calls += 1
        d = GAUSSIAN(x, s)
        if calls == evaluation:
            d[-1, 0] = bad
        return d

    message = f"not finite in step {step} of 3 ({sampler}), at sigma = {sigma}"
    with pytest.raises(kdiff.NonFiniteError, match=re.escape(message) + "$"):
        kdiff.sample(failing, sampler, sigmas=[8, 1, 0.25, 0], n=2, shape=(3,))
    assert calls == evaluation  # and no more were made


def test_an_exception_in_the_model_reaches_the_caller():
    def failing(x, sigma):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        kdiff.sample(failing, sigmas=[1, 0], shape=(1,))


# --- threads ---


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp_sde"])
def test_threads_do_not_disturb_each_other(model, sampler):
    def sample(seed: int) -> torch.Tensor:
        return kdiff.sample(model, sampler, seed=seed, n=4, steps=12, batch=2)

    serial = [sample(seed) for seed in (0, 50, 100, 150)]
    start = threading.Barrier(4)
    parallel: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        start.wait()
        parallel[i] = sample(50 * i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(serial):
        assert torch.equal(parallel[i], expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interleaved_drives_do_not_disturb_each_other(sampler):
    """Two half-finished runs of one model and one plan, stepped in turn."""
    plan = kdiff.plan(GAUSSIAN, sampler, steps=6)
    noises = [kdiff.Noise([seed], (3,)) for seed in (1, 2)]
    runs = [kdiff.drive(GAUSSIAN, plan, 80 * z.initial(), z) for z in noises]
    *_, last = zip(*runs, strict=True)
    for seed, state in zip((1, 2), last, strict=True):
        assert torch.equal(state.x, kdiff.sample(GAUSSIAN, sampler, steps=6, seed=seed))


@pytest.mark.parametrize("answer", [lambda x: x[:, :1], lambda x: None, lambda x: x.numpy()])
def test_a_model_that_answers_in_the_wrong_shape(answer):
    with pytest.raises(ValueError, match="the model must answer with"):
        kdiff.sample(lambda x, sigma: answer(x), "euler", sigmas=[1, 0], shape=(3, 2, 2))


def test_a_network_that_answers_in_the_wrong_shape():
    model = kdiff.Denoiser(lambda x, c_noise: x[:, :2], "edm", shape=(3, 2, 2))
    with pytest.raises(ValueError, match="the network must answer with"):
        kdiff.sample(model, steps=1)


@pytest.mark.parametrize("labels", [[10], [-2], [1.5]])
def test_class_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=r"whole numbers from -1 \(none\) to 9"):
        kdiff.sample(kdiff.load(), steps=1, class_labels=labels)


@pytest.mark.parametrize(("label_dim", "refused"), [(0, True), (3, False)])
def test_class_labels_that_a_network_would_ignore(label_dim, refused):
    """`classes` has their names; the network says whether there are any."""
    network = SongUNet(8, model_channels=8, num_blocks=1, channel_mult=[1], label_dim=label_dim)
    model = kdiff.Denoiser(network, "edm", shape=(3, 8, 8), name="small")
    if refused:
        with pytest.raises(ValueError, match="small has no classes: leave out class_labels"):
            kdiff.sample(model, steps=1, class_labels=[1])
    else:
        assert kdiff.sample(model, steps=1, class_labels=[1]).shape == (1, 3, 8, 8)


def test_a_network_with_dropout_is_put_into_evaluation_mode():
    network = torch.nn.Dropout(0.5)
    model = kdiff.Denoiser(lambda x, c: network(x), "edm", shape=(8,))
    assert network.training and model  # a function's network is its own affair
    kdiff.Denoiser(network, "edm", shape=(8,))
    assert not network.training
