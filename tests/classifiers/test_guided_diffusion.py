"""OpenAI's classifiers against OpenAI's code. golden/openai_classifier.json holds what its networks
compute and which shapes its published ones have; tools/make_openai_classifier_golden.py writes it.
"""

import hashlib
import json
import math

import pytest
import torch

import kdiff
import places
from kdiff.classifiers import guided_diffusion, load_classifier
from kdiff.guidance.classifier_gradient import log_gradient
from kdiff.networks.openai_classifier import OpenAIClassifier
from openai_files import saved
from openai_files import small as small_unet
from small_networks import fill

GOLDEN = json.loads((places.GOLDEN / "openai_classifier.json").read_text())
X = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).cos().reshape(2, 3, 8, 8)
TIMES = torch.tensor([0.25, 999.0])


def filled(name):
    """With the weights that the tool gave OpenAI's."""
    network = OpenAIClassifier(**GOLDEN["small"][name]["arguments"]).eval()
    fill(network)
    return network


@pytest.mark.parametrize("name", GOLDEN["small"])
def test_the_network_computes_what_openais_code_does(name):
    golden, network = GOLDEN["small"][name], filled(name)
    assert sorted(network.state_dict()) == golden["names"]
    x = X.clone().requires_grad_()
    logits = network(x, TIMES)
    expected = torch.tensor(golden["logits"])
    torch.testing.assert_close(logits.flatten(), expected, rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(logits.log_softmax(1)[:, 1].sum(), x)
    expected = torch.tensor(golden["gradient of log p of class 1"])
    torch.testing.assert_close(slope.flatten()[::7], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GOLDEN["published"])
def test_published_classifiers_are_recognised_by_their_shapes(name):
    golden = GOLDEN["published"][name]
    mult = {
        64: (1, 2, 3, 4),
        128: (1, 1, 2, 3, 4),
        256: (1, 1, 2, 2, 4, 4),
        512: (0.5, 1, 1, 2, 2, 4, 4),
    }[golden["image_size"]]
    levels = len(mult)
    arguments = {
        "model_channels": 128,
        "channel_mult": mult,
        "num_res_blocks": golden["depth"],
        "attention_levels": tuple(range(levels - 3, levels)),
        "num_classes": 1000,
        "in_channels": 3,
        "pooled_size": golden["image_size"] // 2 ** (levels - 1),
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "conv_resample": False,
    }
    with torch.device("meta"):
        tensors = OpenAIClassifier(**arguments).state_dict()
    shapes = {key: list(value.shape) for key, value in tensors.items()}
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    assert digest == golden["shapes"]
    assert sum(value.numel() for value in tensors.values()) == golden["parameters"]
    found = guided_diffusion.read_architecture({k: tuple(v) for k, v in shapes.items()})
    assert found == arguments
    assert guided_diffusion.image_size(found) == golden["image_size"]


def with_heads_of_64(**changes):
    """As `classifier_train.py` makes it, but tiny."""
    torch.manual_seed(0)
    return OpenAIClassifier(64, (1, 1), 2, (1,), num_classes=10, pooled_size=4, **changes)


def test_a_file_is_asked_in_the_variance_preserving_frame_at_the_timestep_of_sigma(tmp_path):
    network = with_heads_of_64().eval()
    torch.save(network.state_dict(), tmp_path / "8x8_classifier.pt")
    classifier = load_classifier(str(tmp_path / "8x8_classifier.pt"))
    assert classifier.shape == (3, 8, 8) and len(classifier.classes) == 10
    alphas = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    betas = [min(1 - alphas[i + 1] / alphas[i], 0.999) for i in range(1000)]
    product = torch.tensor([1 - beta for beta in betas], dtype=torch.float64).cumprod(0)
    for t in (0, 400, 900):  # its beta: cosine, as for 64x64_classifier.pt
        alpha = float(product[t])
        sigma = math.sqrt(1 / alpha - 1)
        expected = network(alpha**0.5 * X, torch.tensor([float(t)] * 2))
        torch.testing.assert_close(classifier(X, sigma), expected, rtol=1e-4, atol=1e-4)
    record = classifier.record()
    assert record["name"] == "8x8_classifier" and len(record["sha256"]) == 64


def test_the_schedule_of_large_images_is_linear_and_can_be_told(tmp_path):
    torch.save(with_heads_of_64().state_dict(), tmp_path / "c.pt")
    told = guided_diffusion.load(tmp_path / "c.pt", noise_schedule="linear")
    linear = kdiff.precond("eps", alphas_cumprod="linear", steps=1000)
    assert told.precond(1.0) == linear(1.0)
    large = OpenAIClassifier(64, (1, 1), 1, (1,), num_classes=3, pooled_size=64)
    torch.save(large.state_dict(), tmp_path / "large.pt")
    assert load_classifier(tmp_path / "large.pt").precond(1.0) == linear(1.0)


def test_guidance_is_openais_eps_minus_the_scaled_gradient(tmp_path):
    """eps' = eps - w sqrt(1 - abar) grad log p(y | x'), in their frame (condition_score)."""
    network = with_heads_of_64().eval()
    torch.save(network.state_dict(), tmp_path / "c.pt")
    classifier = load_classifier(tmp_path / "c.pt")
    labels, sigma, w = torch.tensor([3, 7]), 2.0, 4.0
    alpha = 1 / (1 + sigma**2)
    xp = (alpha**0.5 * X).requires_grad_()
    t = torch.full((2,), classifier.precond(sigma).c_noise)
    chosen = network(xp, t).log_softmax(1)[range(2), labels]
    (slope,) = torch.autograd.grad(chosen.sum(), xp)
    eps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = X - sigma * (eps - w * (1 - alpha) ** 0.5 * slope)
    ours = (X - sigma * eps) + w * sigma**2 * log_gradient(classifier, X, sigma, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_mean_pool_and_convolutions_that_halve_are_read_too():
    golden = GOLDEN["small"]["mean"]
    shapes = {k: tuple(v.shape) for k, v in filled("mean").state_dict().items()}
    found = guided_diffusion.read_architecture(shapes)
    assert found.pop("pooled_size") == 0 and found.pop("conv_resample")
    assert found.pop("in_channels") == 3
    wanted = {**golden["arguments"], "channel_mult": (1, 1, 2), "attention_levels": (2,)}
    del wanted["num_head_channels"]
    assert found == wanted


def test_a_diffusion_model_is_not_a_classifier(tmp_path):
    with pytest.raises(ValueError, match="a diffusion model, not a classifier"):
        load_classifier(saved(tmp_path, small_unet()))


def test_an_image_size_that_nothing_tells_is_an_error(tmp_path):
    torch.save(filled("mean").state_dict(), tmp_path / "mean.pt")
    with pytest.raises(ValueError, match="without attention pool, of no image size"):
        load_classifier(tmp_path / "mean.pt")
