"""Names of references: where they are found, and what a misspelt one suggests."""

from pathlib import Path

import pytest
from PIL import Image

from kdiff.eval.evaluation import reference_for
from kdiff.eval.references import save_reference, stored_references
from toy_references import IMAGES, find, gaussian, network, reference, refused


def test_a_name_is_found_for_its_network_and_mode(tmp_path, packaged):
    own = tmp_path / "home" / "references"
    own.mkdir(parents=True)
    save_reference(reference("cifar10"), packaged / "cifar10-inception-clean.safetensors")
    legacy = reference("cifar10", resize="legacy_tensorflow", gaussian=gaussian(seed=7))
    save_reference(legacy, packaged / "cifar10-inception-legacy_tensorflow.safetensors")
    save_reference(reference("cifar10", features="toy", resize=None), own / "b.safetensors")
    assert [path.name for path in stored_references()] == [
        "cifar10-inception-clean.safetensors",
        "cifar10-inception-legacy_tensorflow.safetensors",
        "b.safetensors",
    ]
    assert find("cifar10").resize == "clean"
    assert find("cifar10", resize="legacy_tensorflow").sha256 == legacy.sha256
    assert find("cifar10", "toy", None).features == "toy"
    there = "inception (clean), inception (legacy_tensorflow), toy"
    refused(lambda: find("cifar10", resize="legacy_pytorch"), there, "inception (legacy_pytorch)")
    (own / "broken.safetensors").write_bytes(b"1")  # it does not stand in the way of others
    assert find("cifar10").resize == "clean"  # a packaged one: nobody looks there for it
    with pytest.warns(UserWarning, match=r"passed over: .*broken.safetensors"):
        assert find("cifar10", "toy", None).features == "toy"


def test_a_name_is_never_a_folder(packaged, tmp_path, monkeypatch):
    """What a record calls cifar10 is one set of images."""
    monkeypatch.chdir(tmp_path)
    Path("cifar10").mkdir()
    for i in range(2):
        Image.fromarray(IMAGES[i]).save(f"cifar10/{i}.png")
    assert find("cifar10").name == "cifar10"  # a folder, as long as there is no such name
    save_reference(reference("cifar10"), packaged / "cifar10-inception-clean.safetensors")
    with pytest.warns(UserWarning, match=r"^cifar10 is a reference's name: .* say \./cifar10$"):
        assert find("cifar10").n == 1000
    assert (find("./cifar10").name, find("./cifar10").n) == ("./cifar10", 2)
    assert reference_for(Path("cifar10"), network(), ["fid"]).name == "./cifar10"


def test_a_misspelt_name_suggests_the_nearest(packaged):
    save_reference(reference("cifar10"), packaged / "a.safetensors")
    save_reference(reference("ffhq-64"), packaged / "b.safetensors")
    refused(lambda: find("cifar-10"), "no reference 'cifar-10'", "did you mean cifar10")
    refused(lambda: find("FFHQ64"), "did you mean ffhq-64?")
    refused(lambda: find("zzz"), "neither a name nor a file", "kdiff ref list")
    refused(lambda: find("nowhere/x.npz"), "no reference 'nowhere/x.npz'")
