"""Classifiers by name, from files, and functions of the user's own."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdiff.classifiers import Classifier, NoisyClassifier, load_classifier, native
from kdiff.networks.noisy_classifier import NoisyClassifier as Network

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network((3, 8, 8), 3, (8, 16)).eval()


@pytest.fixture
def path(tmp_path, network):
    native.save(tmp_path / "mine.safetensors", network, ["cat", "dog", "eel"])
    return tmp_path / "mine.safetensors"


def test_a_file_of_the_tool_holds_the_network_and_its_classes(path, network):
    classifier = load_classifier(str(path))
    assert isinstance(classifier, NoisyClassifier)
    assert classifier.classes == ("cat", "dog", "eel") and classifier.shape == (3, 8, 8)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert classifier.record() == {"name": "mine", "sha256": digest}
    assert not any(p.requires_grad for p in classifier.network.parameters())
    sigma = 1.5
    c_noise = torch.tensor([sigma, sigma]).log() / 4
    expected = network(X / (sigma**2 + 0.25) ** 0.5, c_noise)
    torch.testing.assert_close(classifier(X, sigma), expected, rtol=5e-3, atol=5e-3)  # float16


def test_logits_have_the_type_of_x_whatever_the_network_computes_in(path):
    classifier = load_classifier(path)
    wide = classifier(X, 2.0)
    assert classifier.to(dtype=torch.bfloat16)(X.double(), 2.0).dtype == torch.float64
    torch.testing.assert_close(classifier(X, 2.0), wide, rtol=0.05, atol=0.02)


def test_for_large_sigma_the_logits_fall_like_one_over_sigma(path):
    classifier = load_classifier(path)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = [float(classifier(sigma * noise, sigma).std()) for sigma in (20.0, 80.0)]
    assert 2 < sizes[0] / sizes[1] < 8  # 4, and what the clock changes


def test_a_function_becomes_a_classifier_with_what_it_says(tmp_path, monkeypatch):
    text = "def f(x, sigma):\n    return x.flatten(1)[:, :2]\n\nf.classes = ('a', 'b')\nnone = 3\n"
    (tmp_path / "kdiff_test_classifiers.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = load_classifier("kdiff_test_classifiers:f")
    assert isinstance(found, NoisyClassifier) and found.classes == ("a", "b")
    assert found.shape is None and torch.equal(found(X, 1.0), X.flatten(1)[:, :2])
    assert found.record() == {"name": "kdiff_test_classifiers:f", "sha256": None}
    with pytest.raises(ValueError, match="'kdiff_test_classifiers:none' is int, not a function"):
        load_classifier("kdiff_test_classifiers:none")
    module = torch.nn.Linear(2, 2)
    assert load_classifier(module).to(dtype=torch.float64) and module.weight.dtype == torch.float64
    mine = Classifier(module, native.PRECOND, shape=(2,), classes="ab", name="mine")
    assert load_classifier(mine) is mine


def changed(path, change):
    tensors = load_file(path)
    config = {"network": {"shape": [3, 8, 8], "classes": 3, "widths": [8, 16]}}
    config["classes"] = ["cat", "dog", "eel"]
    change(tensors, config)
    save_file(tensors, path, {"format": native.FORMAT, "config": json.dumps(config)})


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, config: tensors.pop("stem.bias"),
        lambda tensors, config: config.pop("classes"),
        lambda tensors, config: config.update(classes=["cat"]),
        lambda tensors, config: config["network"].update(widths=[8, 16] * 10**4),
        lambda tensors, config: config["network"].update(widths=[8, 10**9]),
        lambda tensors, config: config["network"].update(shape=[3, 7, 7]),
        lambda tensors, config: config.update(network=[]),
    ],
    ids=["tensor", "classes", "few", "many", "wide", "odd", "list"],
)
def test_a_file_that_does_not_fit_itself_is_an_error_of_one_line(path, change):
    changed(path, change)
    with pytest.raises(ValueError, match="its config and its tensors do not fit") as told:
        load_classifier(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("cifar10-nosy", "no noisy-image classifier 'cifar10-nosy'.*cifar10-noisy"),
        ("cifar10", "neither a file nor one that comes with kdiff"),
        ("no_such_module:f", "there is no noisy-image classifier 'no_such_module:f'"),
        (None, "is a name, a file or a function, not None"),
    ],
)
def test_what_is_not_a_classifier_is_an_error(what, match):
    with pytest.raises(ValueError, match=match):
        load_classifier(what)


def test_other_files_are_errors(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"neither a noisy-image classifier of tools/.*: no "):
        load_classifier(tmp_path / "a.safetensors")
    (tmp_path / "page.pt").write_text("<!doctype html><html>")
    with pytest.raises(ValueError, match="a web page"):
        load_classifier(tmp_path / "page.pt")
