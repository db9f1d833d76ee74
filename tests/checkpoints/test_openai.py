"""OpenAI's checkpoints against OpenAI's code. golden/openai_unet.json holds what its networks
compute and which names, shapes and noise levels its published models have;
tools/make_openai_golden.py makes it."""

import hashlib
import json
from dataclasses import asdict

import pytest
import torch

import kdiff
from kdiff.checkpoints import native, openai
from kdiff.checkpoints.openai_models import PUBLISHED
from kdiff.networks.openai_unet import OpenAIUNet
from openai_files import FLAGS, GOLDEN, SHAPE, saved, small


@pytest.mark.parametrize("name", GOLDEN["small"])
def test_a_file_computes_what_openais_code_does(name, tmp_path):
    golden = GOLDEN["small"][name]
    arguments = golden["arguments"]
    heads = {key: arguments[key] for key in openai.HEADS if key in arguments}
    order = arguments.get("use_new_attention_order")
    path = saved(tmp_path, small(name))
    model = kdiff.load(
        path, shape=SHAPE, noise_schedule="linear", use_new_attention_order=order, **heads
    )
    assert sorted(model.network.state_dict()) == golden["names"]
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).cos().reshape(2, *SHAPE)
    labels = torch.tensor([1, 2]) if model.classes else None
    with torch.no_grad():
        y = model.network(x, torch.tensor([0.25, 999.0]), labels)
    expected = torch.tensor(golden["values"])
    torch.testing.assert_close(y.flatten()[::7], expected, rtol=1e-5, atol=1e-5)


def on_meta(network):
    """A network's tensors on the meta device: names and shapes, but no memory."""
    with torch.device("meta"):
        return network().state_dict()


@pytest.mark.parametrize("name", GOLDEN["published"])
def test_published_models_are_recognised_by_their_shapes(name):
    golden = GOLDEN["published"][name]
    row = next(asdict(row) for row in PUBLISHED if name in row.files.split(", "))
    arguments = {key: row[key] for key in row if key not in ("files", *openai.TRACELESS)}
    tensors = on_meta(lambda: OpenAIUNet(**arguments, num_head_channels=row["num_head_channels"]))
    shapes = {key: list(value.shape) for key, value in tensors.items()}
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    assert digest == golden["shapes"]
    assert sum(value.numel() for value in tensors.values()) == golden["parameters"]

    architecture = openai.read_architecture({k: tuple(v) for k, v in shapes.items()})
    assert architecture == arguments
    settings, facts = openai.choose_settings(architecture, {})
    assert name in facts["assumed"]
    assert openai.choose_shape(None, architecture) == (3, *2 * [golden["image_size"]])
    process = openai.make_precond(settings)
    assert [process.sigmas[t] for t in golden["steps"]] == pytest.approx(golden["sigmas"])

    with torch.device("meta"):
        network = openai.make_network(architecture, settings)
    times = [process(process.sigmas[t]).c_noise * network.time_scale for t in golden["steps"]]
    assert times == pytest.approx(golden["times"])
    attentions = [m for m in network.modules() if hasattr(m, "new_order")]
    assert [m.heads for m in attentions] == golden["heads"]
    assert {m.new_order for m in attentions} == {golden["new_order"]}


def test_says_what_was_told_and_what_is_assumed(tmp_path):
    path = saved(tmp_path, small())
    model = kdiff.load(path, shape=SHAPE, **FLAGS)
    assert model.facts["told"] == "num_heads 2, noise_schedule linear"
    assumed = "use_new_attention_order False, diffusion_steps 1000"
    assert model.facts["assumed"] == f"the scripts' defaults: {assumed}"
    assert model.precond.name == "eps"
    assert len(model.sigmas) == 1000
    assert model.shape == SHAPE
    assert len(model.classes) == 5
    assert (
        kdiff.load(model_path(tmp_path), shape=SHAPE, prediction="x0", **FLAGS).precond.name == "x0"
    )


def model_path(folder):
    return folder / "ema_0.9999_000100.pt"


def test_20_linear_steps_end_at_zero_snr(tmp_path):
    """The scripts scale betas that are made for 1000 steps. With 20 steps the last beta is 1, and
    with fewer it would exceed 1."""
    path = saved(tmp_path, small())
    few = {**FLAGS, "noise_schedule": "linear", "rescale_timesteps": False}
    model = kdiff.load(path, shape=SHAPE, diffusion_steps=20, **few)
    assert model.sigmas[-1] == pytest.approx(2 * model.sigmas[-2]) and model.sigmas[-2] > 4096
    with pytest.raises(ValueError, match="betas must be at most 1, but linear ones of 19 steps go"):
        kdiff.load(path, shape=SHAPE, diffusion_steps=19, **few)


def test_rescaled_timesteps_reach_the_network(tmp_path):
    path = saved(tmp_path, small("improved"))
    plain, rescaled = (
        kdiff.load(
            path,
            shape=SHAPE,
            num_heads=4,
            noise_schedule="cosine",
            diffusion_steps=4000,
            rescale_timesteps=rescale,
        )
        for rescale in (False, True)
    )
    x, labels = torch.ones(1, *SHAPE), torch.tensor([0])
    with torch.no_grad():
        found = rescaled.network(x, torch.tensor([2000.0]), labels)
        expected = plain.network(x, torch.tensor([500.0]), labels)
    assert torch.equal(found, expected)
    assert len(rescaled.sigmas) == 4000


def test_a_file_may_change_once_it_is_loaded(tmp_path):
    path = saved(tmp_path, small())
    model = kdiff.load(path, shape=SHAPE, **FLAGS)
    path.write_bytes(b"")
    assert model(torch.ones(1, *SHAPE), 1.0, class_labels=torch.tensor([0])).isfinite().all()


def test_converts_to_kdiffs_own_format(tmp_path):
    path = saved(tmp_path, small("improved"))
    model = kdiff.load(
        path,
        shape=SHAPE,
        num_heads=4,
        noise_schedule="cosine",
        diffusion_steps=4000,
        rescale_timesteps=True,
    )
    native.save(
        tmp_path / "own.safetensors",
        model.network.state_dict(),
        native.describe(model),
        torch.float32,
    )
    own = kdiff.load(tmp_path / "own.safetensors")
    x, labels = torch.ones(1, *SHAPE), torch.tensor([2])
    with torch.no_grad():
        assert torch.equal(own(x, 0.5, class_labels=labels), model(x, 0.5, class_labels=labels))
    assert own.classes == model.classes


def under_prefix(tensors):
    return {f"module.{key}": value for key, value in tensors.items()}


@pytest.mark.parametrize(
    "wrapping",
    [
        under_prefix,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"state_dict": under_prefix(tensors)},
    ],
)
def test_state_dicts_as_other_scripts_save_them(wrapping, tmp_path):
    path = saved(tmp_path, small())
    plain = kdiff.load(path, shape=SHAPE, **FLAGS)
    torch.save(wrapping(torch.load(path)), path)
    x, labels = torch.ones(1, *SHAPE), torch.tensor([2])
    found = kdiff.load(path, shape=SHAPE, **FLAGS)(x, 0.5, class_labels=labels)
    assert torch.equal(found, plain(x, 0.5, class_labels=labels))


def test_half_precision_files_make_float32_networks(tmp_path):
    network = small()
    exact = kdiff.load(saved(tmp_path, network), shape=SHAPE, **FLAGS)
    halved = kdiff.load(saved(tmp_path, network.half()), shape=SHAPE, **FLAGS)
    assert halved.dtype == torch.float32
    kept = kdiff.load(saved(tmp_path, network), shape=SHAPE, dtype=None, **FLAGS)
    assert kept.dtype == torch.float16
    x, labels = torch.ones(1, *SHAPE), torch.tensor([0])
    with torch.no_grad():
        torch.testing.assert_close(
            halved(x, 1.0, class_labels=labels),
            exact(x, 1.0, class_labels=labels),
            rtol=0.02,
            atol=0.02,
        )


def test_sampling_needs_a_class_and_leaves_the_global_generator_alone(tmp_path):
    path = saved(tmp_path, small())
    before = torch.get_rng_state()
    model = kdiff.load(path, shape=SHAPE, **FLAGS)
    images = kdiff.sample(model, "ddim", steps=3, n=2, class_labels=[0, 4])
    assert images.shape == (2, *SHAPE)
    for labels in (None, [0, -1]):
        with pytest.raises(ValueError, match="no null class: give class_labels from 0 to 4"):
            kdiff.sample(model, "ddim", steps=3, n=2, class_labels=labels)
    assert torch.equal(torch.get_rng_state(), before)
