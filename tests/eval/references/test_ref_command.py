"""The command `kdiff ref`: it makes, lists and shows references."""

import json

import numpy as np
import pytest

from kdiff.eval.references import load_reference, save_reference
from toy_references import IMAGES, PLUGIN, WEIGHTS, cli, find, gaussian, reference, refused_cli, toy


def test_make_list_and_show(tmp_path, images):
    assert cli("list").output.split() == ["name", "N", "resize", "features", "weights", "where"]
    result = cli("make", "mine", "--images", images, "--features", PLUGIN)
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "home" / "references").iterdir()
    assert file.name == "mine-toy_references_toy.safetensors"
    assert str(file) in result.stdout
    row = cli("list").output.splitlines()[1].split()
    assert row[:5] == ["mine", "40", "-", PLUGIN, WEIGHTS[:12]]
    (listed,) = json.loads(cli("list", "--json").output)
    assert listed["n"] == 40 and listed["file"] == str(file) and listed["source"] == str(images)
    shown = cli("show", "mine", "--features", PLUGIN)
    assert shown.exit_code == 0 and "40" in shown.output and PLUGIN in shown.output
    record = json.loads(cli("show", "mine", "--features", PLUGIN, "--json").output)
    rows = toy(IMAGES).astype(np.float64)
    assert record["trace"] == pytest.approx(rows.var(0, ddof=1).sum(), rel=1e-6)
    assert record["dimensions"] == 16 and record["spatial"] is False


def test_show_writes_what_pytorch_fid_reads(tmp_path, images):
    out = tmp_path / "a" / "own.safetensors"
    assert cli("make", "x", "--images", images, "--features", PLUGIN, "--out", out).exit_code == 0
    assert not (tmp_path / "home").exists()
    for npz in (tmp_path / "stats.npz", tmp_path / "stats"):
        result = cli("show", out, "--features", PLUGIN, "--npz", npz)
        assert result.exit_code == 0, result.output
        with np.load(npz) as file:  # as pytorch-fid does
            mu, sigma = file["mu"][:], file["sigma"][:]
            assert file.files == ["mu", "sigma"]
        assert mu.dtype == sigma.dtype == np.float64
        rows = toy(IMAGES).astype(np.float64)
        np.testing.assert_allclose(mu, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(sigma, np.cov(rows, rowvar=False), rtol=1e-6, atol=1e-9)
    again = find(tmp_path / "stats.npz")
    assert again.sha256 == load_reference(out).sha256
    assert "stats.npz exists" in refused_cli("show", out, "--npz", tmp_path / "stats.npz")
    overwritten = cli("show", out, "--npz", tmp_path / "stats.npz", "--overwrite")
    assert overwritten.exit_code == 0


def test_show_writes_spatial_statistics_as_guided_diffusion_names_them(tmp_path):
    save_reference(reference(spatial=gaussian(5)), tmp_path / "x.safetensors")
    assert cli("show", tmp_path / "x.safetensors", "--npz", tmp_path / "x.npz").exit_code == 0
    assert find(tmp_path / "x.npz").sha256 == find(tmp_path / "x.safetensors").sha256


def test_bad_input_is_one_line_with_status_2_and_writes_nothing(tmp_path, images, packaged):
    save_reference(reference("taken"), packaged / "taken-inception-clean.safetensors")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    toys = ("--features", PLUGIN)

    def case(part, *arguments):
        line = refused_cli(*arguments)
        assert part in line
        assert sorted(tmp_path.rglob("*")) == before

    case("has no images", "make", "x", "--images", tmp_path / "empty", *toys)
    case("no folder or file", "make", "x", "--images", tmp_path / "nowhere", *toys)
    case("letters, digits", "make", "../x", "--images", images, *toys)
    case("letters, digits", "make", "", "--images", images, *toys)
    case("comes with kdiff", "make", "taken", "--images", images, "--resize", "clean")
    case("--batch must be", "make", "x", "--images", images, "--batch", 0, *toys)
    case("writes a .safetensors", "make", "x", "--images", images, "--out", images, *toys)
    inside = images / "x.safetensors"
    case("cannot write into", "make", "x", "--images", images, "--out", inside, *toys)
    case("no device 'toaster'", "make", "x", "--images", images, "--device", "toaster", *toys)
    case("did you mean inception", "make", "x", "--images", images, "--features", "inceptoin")
    case("'--images'", "make", "x")
    case("did you mean taken", "show", "takn")
    case("is there for inception (clean)", "show", "taken")
    case("is images, not statistics", "show", images)
    case("cannot write into", "show", "taken", "--resize", "clean", "--npz", images / "x.npz")


def test_a_name_is_made_again_only_with_overwrite(images):
    arguments = ("make", "mine", "--images", images, "--features", PLUGIN)
    assert cli(*arguments).exit_code == 0
    assert "exists; choose another name, or add --overwrite" in refused_cli(*arguments)
    assert cli(*arguments, "--overwrite").exit_code == 0
