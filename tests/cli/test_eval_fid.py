"""`kdiff eval-fid` as a person uses it."""

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kdiff
import toy_network
from kdiff.cli import main
from kdiff.eval.images.from_model import Generated
from kdiff.eval.metrics.frechet import Gaussian, frechet_distance
from kdiff.images import to_uint8

TOY = ("--features", "toy_network:scored")
FEW = ("--num", "3", "--steps", "1")


def eval_fid(*arguments):
    return CliRunner().invoke(main, ["eval-fid", *map(str, arguments)])


def record(*arguments):
    result = eval_fid("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments):
    """The one line that says what is wrong."""
    result = eval_fid(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    *_, line = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The toy's statistics of 300 images, as other projects write them."""
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    rows = toy_network.features(images)
    path = tmp_path_factory.mktemp("reference") / "stats.npz"
    np.savez(path, mu=rows.mean(0), sigma=np.cov(rows.T))
    return path


def test_what_a_model_makes_is_evaluated_without_touching_the_disk(
    tmp_path, reference, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    chosen = ("--sampler", "euler", "--steps", 2, "--num", 20, "--seed", 7, "--batch", 8)
    found = record("--ref", reference, *TOY, *chosen)
    assert not list(tmp_path.iterdir())
    images = kdiff.sample(
        kdiff.load(), "euler", steps=2, n=20, seed=7, class_labels=[i % 10 for i in range(20)]
    )
    rows = toy_network.features(to_uint8(images))
    with np.load(reference) as file:
        real = Gaussian(file["mu"], file["sigma"])
    expected = frechet_distance(real, Gaussian(rows.mean(0), np.cov(rows.T)))
    figure = found["metrics"]["FD (toy_network:scored)"]
    assert (figure["value"], figure["n"]) == (pytest.approx(expected, rel=1e-3), 20)
    made = found["images"]
    assert (made["sampler"], made["nfe"], made["seeds"]) == ("euler", 2, {"first": 7, "n": 20})
    assert made["kind"] == "model" and len(made["model_sha256"]) == 64
    assert found["features"] == {"name": "toy_network:scored", "resize": None, "weights": ""}
    assert found["environment"]["kdiff"] == kdiff.__version__
    assert found["noise_floor"]["FD (toy_network:scored)"] > 0


def test_the_table_says_n_the_floor_and_what_was_assumed(reference):
    result = eval_fid("--ref", reference, *TOY, "--num", 12, "--steps", 1, "--metrics", "fid,is")
    assert result.exit_code == 0, result.output
    assert "FD (toy_network:scored)" in result.stdout and "N = 12" in result.stdout
    assert "12 perfect images would get about" in result.stdout
    assert "does not record its" in result.stdout


def test_the_record_goes_to_a_file_too(tmp_path, reference):
    out = tmp_path / "result.json"
    shown = eval_fid("--ref", reference, *TOY, "--num", 8, "--steps", 1, "--out", out)
    assert shown.exit_code == 0, shown.output
    assert json.loads(out.read_text())["images"]["n"] == 8
    assert "add --overwrite" in refusal("--ref", reference, *TOY, "--out", out)


def test_out_of_the_box():
    """The packaged model against the packaged reference with Inception's features."""
    found = record("--num", 16, "--steps", 3, "--backend", "all")
    fid, floor = found["metrics"]["FID"], found["noise_floor"]["FID"]
    assert found["reference"]["name"] == "cifar10" and found["reference"]["n"] == 50_000
    assert found["features"]["resize"] == "legacy_tensorflow"
    assert 0.8 * floor < fid["value"] < 500
    theirs = found["backends"]["torchmetrics"]["figures"]["FID"]
    assert theirs == pytest.approx(fid["value"], rel=1e-4)
    assert found["backends"]["clean-fid"]["figures"] == {}
    assert "only in a network of its own" in found["backends"]["clean-fid"]["note"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--ref", "cifar"], "did you mean cifar10"),
        (["--ref", "cifar10", "--resize", "legacy_pytorch"], "not for inception (legacy_pytorch)"),
        (["--metrics", "fdi"], "did you mean fid"),
        (["--metrics", "is"], "weights-inception-2015-12-05-6726825d.pth"),
        (["--metrics", "kid"], "need its images"),
        (["--features", "inceptoin"], "did you mean inception?"),
        (["--model", "nothing.safetensors"], "no model 'nothing.safetensors'"),
        (["--sampler", "eulr"], "did you mean euler"),
        (["--num", "1"], "1 is not in the range"),
        (["--weights", "nothing.pt"], "there is no weights file nothing.pt"),
        (["--images", "nowhere"], "there is no folder or file nowhere"),
        (["--images", "x.png", "--steps", "5"], "--steps is for images that a model makes"),
        (["--images", "x.png", "--model", "cifar10"], "--model is for images that a model makes"),
        (["--out", "/proc/x.json", *TOY, "--ref", "{toy}", *FEW], "cannot write /proc/x.json"),
        (["--metrics", "fid-inf"], "fid-inf needs at least 8,196 images, not 1,000"),
        (["--metrics", "fid", "--num", "3", "--ref", "{negative}"], "it is none"),
        (["--ref", "{toy}", *FEW], "2048 dimensions, the reference 12"),
        (["--device", "abacus"], "no device 'abacus' here"),
    ],
)
def test_bad_input_is_one_line(arguments, line, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    references = {"negative": -np.eye(2048), "toy": np.eye(12)}
    for name, sigma in references.items():
        np.savez(tmp_path / f"{name}.npz", mu=np.zeros(len(sigma)), sigma=sigma)
    places = {name: tmp_path / f"{name}.npz" for name in references}
    assert line in refusal(*(argument.format(**places) for argument in arguments))
    assert not list(tmp_path.rglob("*.pth"))


def images_in(folder, names, mode="RGB", size=(8, 8)):
    for name in names:
        Image.new(mode, size).save(folder / name)
    return folder


def test_bad_images_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no images" in refusal("--images", tmp_path / "empty")
    (tmp_path / "one").mkdir()
    images_in(tmp_path / "one", ["a.png"])
    assert "just one image" in refusal("--images", tmp_path / "one")
    (tmp_path / "alpha").mkdir()
    images_in(tmp_path / "alpha", ["a.png", "b.png"], "RGBA")
    assert "has transparency" in refusal("--images", tmp_path / "alpha")
    (tmp_path / "mixed").mkdir()
    images_in(tmp_path / "mixed", ["a.png"])
    images_in(tmp_path / "mixed", ["b.png"], size=(9, 8))
    assert "several sizes" in refusal("--images", tmp_path / "mixed")


def test_a_truncated_image_in_the_middle_is_one_line(tmp_path, reference):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in "abc":
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    result = eval_fid("--images", tmp_path, "--ref", reference, *TOY)
    assert result.exit_code != 0 and isinstance(result.exception, SystemExit)
    assert "b.png cannot be read, it may be damaged" in result.stderr.strip().splitlines()[-1]


def test_a_missing_library_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    found = record("--num", 8, "--steps", 1, "--backend", "torchmetrics")
    assert "pip install 'torchmetrics[image]'" in found["backends"]["torchmetrics"]["note"]


def test_a_process_without_a_share_makes_nothing():
    model = kdiff.load("mnist")
    source = Generated(model, kdiff.plan(model, steps=1), [0, 1])
    assert list(source.batches(2, [])) == []
    assert [len(images) for images in source.batches(2, [1])] == [1]
