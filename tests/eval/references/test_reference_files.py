"""kdiff's own files of reference statistics."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.eval.references import FORMAT, load_label, load_reference, save_reference
from toy_references import find, gaussian, reference, refused


def test_a_file_is_a_mean_and_a_triangle_and_a_label(tmp_path):
    saved = reference(spatial=gaussian(5, seed=2), source='a: "b", c', created="2026-11-21")
    save_reference(saved, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    assert {k: (v.dtype, v.shape) for k, v in tensors.items()} == {
        "mean": (np.float32, (12,)),
        "cov": (np.float32, (78,)),
        "spatial_mean": (np.float32, (5,)),
        "spatial_cov": (np.float32, (15,)),
    }
    rows = [saved.cov[i, j] for i in range(12) for j in range(i, 12)]
    np.testing.assert_array_equal(tensors["cov"], np.float32(rows))
    loaded = load_reference(tmp_path / "x.safetensors")
    assert vars(loaded.label) == vars(saved.label) == vars(load_label(tmp_path / "x.safetensors"))
    for a, b in [(loaded.gaussian, saved.gaussian), (loaded.spatial_gaussian, saved.spatial)]:
        np.testing.assert_allclose(a.mean, b.mean, rtol=2**-24)
        np.testing.assert_allclose(a.cov, b.cov, rtol=2**-24)
        np.testing.assert_array_equal(a.cov, a.cov.T)
        assert a.cov.dtype == np.float64 and a.n == 1000
    assert loaded.sha256 == saved.sha256 and len(saved.sha256) == 64
    assert loaded.record() == {"name": "mine", "n": 1000, "sha256": saved.sha256}


def test_the_hash_is_of_the_statistics():
    other = Gaussian(gaussian().mean, gaussian().cov * 1.000001, 1000)
    hashes = {
        reference().sha256,
        reference(gaussian=other).sha256,
        reference(spatial=gaussian(5)).sha256,
    }
    assert len(hashes) == 3
    assert reference("yours", weights=None).sha256 == reference().sha256


def test_float32_hardly_moves_a_distance_and_the_file_is_small(tmp_path):
    save_reference(reference(gaussian=gaussian(256, 600)), tmp_path / "a.safetensors")
    loaded = load_reference(tmp_path / "a.safetensors")
    other = gaussian(256, 900, seed=5)
    exact = frechet_distance(gaussian(256, 600), other)
    assert exact > 1
    assert frechet_distance(loaded.gaussian, other) == pytest.approx(exact, rel=3e-8)
    inception = Gaussian(np.zeros(2048), np.eye(2048), 50_000)
    save_reference(reference(gaussian=inception), tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").stat().st_size < 8.42e6


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_reference(reference(), path)
    whole = path.read_bytes()
    for length in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: find(path), "not a whole safetensors file")
    tensors = {"mean": np.zeros(3, np.float32), "cov": np.zeros(6, np.float32)}

    def case(tensors, *parts, **metadata):
        good = {"format": FORMAT, "label": json.dumps({"name": "a"})}
        save_file(tensors, path, {**good, **metadata})
        refused(lambda: find(path), "x.safetensors", *parts)

    case(tensors, "not a kdiff-reference/1", format="kdiff/1")
    case(tensors, "label", label="{")
    case(tensors, "label", label="[1]")
    case(tensors, "label", label='{"name": "a", "surprise": 1}')
    case(tensors, "wrong types", label='{"name": "a", "n": "many"}')
    case({"mean": tensors["mean"]}, "has no 'cov'")
    case({**tensors, "cov": np.zeros(7, np.float32)}, "do not fit")
    case({**tensors, "mean": np.float32([0, np.nan, 0])}, "not finite")
    case({**tensors, "mean": np.zeros(3, np.int32)}, "not arrays of floats")
    case({**tensors, "spatial_mean": tensors["mean"]}, "has no 'spatial_cov'")


def test_what_a_reference_lacks_is_said():
    refused(lambda: reference().spatial_gaussian, "no spatial statistics", "--spatial")
    refused(lambda: reference().rows, "mean and a covariance only", "KID")
