"""The driver: batches, seeds, states, threads, and models that fail."""

import re
import threading

import pytest
import torch

import kdiff
from kdiff.networks import SongUNet
from kdiff.samplers import UnknownName
from small_networks import Network

GAUSSIAN = kdiff.analytic.gaussian(torch.tensor([0.5, -1.0, 2.0]))
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]


@pytest.fixture(scope="module")
def model() -> kdiff.Denoiser:
    return kdiff.Denoiser(Network().eval(), "edm", shape=(3, 8, 8))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


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


def test_seeds():
    def sample(**kwargs):
        return kdiff.sample(GAUSSIAN, "dpmpp_2m_sde", steps=4, **kwargs)

    assert sample().shape == (1, 3)
    assert torch.equal(sample(), sample(seed=0))
    assert torch.equal(sample(n=3, seed=7), sample(seeds=[7, 8, 9]))
    assert torch.equal(sample(seeds=[9, 3]), torch.cat([sample(seed=9), sample(seed=3)]))
    assert torch.equal(sample(n=2, seeds=(5, 1)), sample(seeds=range(5, 0, -4)))
    assert not torch.isclose(sample(seed=1), sample(seed=2)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number, at least 1, not 0"),
        ({"seeds": []}, "nothing to sample"),
        ({"n": 3, "seeds": [1, 2]}, "n = 3, but there are 2 seeds"),
        ({"n": 2, "batch": 0}, "batch must be a whole number, at least 1, not 0"),
        ({"seed": -1}, "a seed must be a whole number from 0 to 2^64 - 1, not -1"),
        ({"seeds": [1, 2**64]}, "a seed must be a whole number"),
        ({"n": 2, "class_labels": [1]}, "class_labels must have one row for each of the 2"),
        ({"n": 2, "class_labels": 1}, "class_labels must have one row for each of the 2"),
        ({"n": 1, "cond": {"text": torch.zeros(2, 5)}}, "text must have one row for each of the 1"),
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"steps": 3, "nfe": 3}, "give only one of steps, nfe and sigmas"),
        ({"steps": 3, "sigmas": [1, 0]}, "give only one of steps, nfe and sigmas"),
        ({"nfe": 3, "sigmas": [1, 0]}, "give only one of steps, nfe and sigmas"),
        ({"sigmas": [1, 0], "schedule": "karras"}, "sigmas are the whole grid: leave out schedule"),
        ({"sigmas": [1, 0], "stpes": 3}, "sigmas are the whole grid: leave out stpes"),
        ({"nfe": 0}, "nfe of dpmpp_2m must be a whole number, at least 1, not 0"),
        ({"options": {"solver": 1}}, "unknown dpmpp_2m option 'solver'; did you mean solver_type"),
        ({"nfe": 2.5}, "nfe of dpmpp_2m must be a whole number"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"seed": 1, "seeds": [1]}, "give only one of seed and seeds"),
        ({"solver_type": "heun"}, "solver_type is an option of dpmpp_2m: give it in options"),
        ({"final": "one", "sigmas": [1, 0]}, "final must be zero or sigma_min, not 'one'"),
        ({"dtype": torch.int32}, "noise needs a floating-point dtype"),
        ({"schedule": ""}, "unknown schedule ''"),
        ({"schedule": "karass"}, "did you mean karras"),
        ({"rh": 3}, "the karras schedule has no setting 'rh'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kdiff.sample(GAUSSIAN, **arguments)


def test_conditions_are_cut_into_batches():
    given = []

    def denoise(x, sigma, class_labels, text):
        given.append((class_labels.tolist(), text[:, 0].tolist()))
        return torch.zeros_like(x)

    kdiff.sample(
        denoise,
        "euler",
        sigmas=[1, 0],
        n=3,
        batch=2,
        shape=(1,),
        class_labels=[7, 8, 9],
        cond={"text": torch.tensor([[0.0, 1], [2, 3], [4, 5]]), "absent": None},
    )
    assert given == [([7, 8], [0.0, 2.0]), ([9], [4.0])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solver_has_the_dtype_that_is_asked_for(dtype):
    assert kdiff.sample(GAUSSIAN, steps=3, dtype=dtype).dtype is dtype


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3)])
def test_the_shape_of_a_plain_function_is_given(shape):
    assert (4, *shape) == kdiff.sample(
        lambda x, s: 0 * x, steps=2, sigma_min=0.1, sigma_max=9, n=4, shape=shape
    ).shape


def test_the_device_of_a_plain_function_is_given():
    def denoise(x, sigma):
        raise LookupError(x.device.type)

    with pytest.raises(LookupError, match="meta"):
        kdiff.sample(denoise, "euler", sigmas=[1, 0], shape=(3,), device="meta")


# --- the plan ---


def test_the_default_plan():
    plan = kdiff.plan(GAUSSIAN)
    assert (plan.sampler.name, plan.schedule, plan.steps, plan.nfe) == (
        "dpmpp_2m",
        "karras",
        20,
        20,
    )
    assert plan.sigmas == kdiff.schedule("karras", 20, GAUSSIAN)
    assert plan.final == "zero"


@pytest.mark.parametrize(
    ("sampler", "nfe", "final", "steps"),
    [
        ("dpmpp_2m", 10, "zero", 10),
        ("heun", 10, "zero", 5),
        ("heun", 11, "zero", 6),
        ("heun", 10, "sigma_min", 5),
        ("heun", 11, "sigma_min", 5),
        ("plms", 10, "zero", 9),
    ],
)
def test_a_budget_of_evaluations(sampler, nfe, final, steps):
    plan = kdiff.plan(GAUSSIAN, sampler, nfe=nfe, final=final)
    assert plan.steps == steps
    assert plan.nfe <= nfe


def test_explicit_sigmas():
    plan = kdiff.plan(GAUSSIAN, "heun", sigmas=[9, 3, 1])
    assert (plan.sigmas, plan.final, plan.nfe) == ([9.0, 3.0, 1.0], "sigma_min", 4)
    assert kdiff.plan(GAUSSIAN, "heun", sigmas=(9, 3, 0)).nfe == 3
    start = 9 * kdiff.Noise([4], (3,)).initial()
    expected = kdiff.analytic.gaussian_solution(torch.tensor([0.5, -1, 2]), 0.5, start, 9, 1)
    grid = [9 - 8 * i / 400 for i in range(401)]
    found = kdiff.sample(GAUSSIAN, "heun", sigmas=grid, seed=4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_schedule_in_a_name_and_the_one_given():
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M SDE Heun Exponential").schedule == "exponential"
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Karras", schedule="vp").schedule == "vp"
    options = {"solver_type": "midpoint"}
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Heun", options=options).options["solver_type"] == (
        "midpoint"
    )
    assert kdiff.plan(GAUSSIAN, "DPM++ 2M Heun").options["solver_type"] == "heun"
    with pytest.raises(UnknownName):
        kdiff.plan(GAUSSIAN, "DPM++ 2M Karas")


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
    """`classes` has their names; whether there are any, the network says."""
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
