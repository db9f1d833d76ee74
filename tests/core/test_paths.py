"""`~` is the home folder wherever a person can write a path. What cannot be a path is refused."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from kdiff.data_folder import data_folder
from kdiff.eval.images.pictures import open_pictures
from kdiff.eval.references import find_reference, load_reference, save_reference
from kdiff.eval.report import read_sweep
from kdiff.images import save_image


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A home folder with a model; the current folder is another."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    shutil.copy(kdiff.models.find_model("mnist"), tmp_path / "home" / "m.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "home" / "images.npz", x=images)
    np.savez(tmp_path / "home" / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


SWEEP = ("--sampler", "euler", "--steps", 1, "--num", 2, "--metrics", "none")


def test_in_python(at_home):
    assert kdiff.load("~/m.safetensors").name == kdiff.checkpoints.load("~/m.safetensors").name
    assert native.load("~/m.safetensors").shape == (1, 28, 28)
    assert kdiff.models.sha256("~/m.safetensors") == kdiff.models.sha256(at_home / "m.safetensors")
    assert len(open_pictures("~/images.npz")) == len(open_pictures("~/images.npz:x")) == 4
    reference = find_reference("~/stats.npz", "any", None)
    save_reference(reference, "~/r.safetensors")
    assert np.array_equal(load_reference("~/r.safetensors").cov, np.eye(3))
    save_image(np.zeros((2, 2, 3), np.uint8), "~/a.png")
    assert (at_home / "a.png").exists()


def test_in_variables(at_home, monkeypatch):
    monkeypatch.setenv("KDIFF_HOME", "~/kept")
    assert data_folder() == at_home / "kept"


def test_in_options_and_arguments(at_home):
    made = call("sample", "--model=~/m.safetensors", "--steps", 1, "--num", 2, "--out=~/made")
    assert made.exit_code == 0 and (at_home / "made" / "run.json").exists()
    assert call("convert", "~/m.safetensors", "~/c.safetensors").exit_code == 0
    assert load_file(at_home / "c.safetensors")
    assert call("sweep", "--model", "mnist,~/m.safetensors", *SWEEP, "--out=~/s").exit_code == 0
    assert call("report", "~/s", "--format", "csv").exit_code == 0
    assert (at_home / "s" / "report" / "tables.csv").exists()
    assert read_sweep("~/s").folder == at_home / "s"


def test_in_a_file_of_a_sweep(at_home):
    (at_home / "s.yaml").write_text("model: [~/m.safetensors]\nout: ~/ä\n", encoding="utf-8")
    result = call("sweep", "--file=~/s.yaml", *SWEEP)
    assert result.exit_code == 0, result.output
    assert (at_home / "ä" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("out: ~\n", "out has no value"),
        ("steps:\n", "steps has no value"),
        ("steps: [[1]]\n", "steps takes a value, or a list of values"),
        ("steps: {a: 1}\n", "steps takes a value, or a list of values"),
        ("out: ''\n", "a path is empty"),
        ("ref: ''\n", "'--ref': it is empty"),
        ("schedule: [karras, '']\n", "none of them empty, not 'karras,'"),
        ("model: [mnist, '']\n", "none of them empty, not 'mnist,'"),
        (f"first-seed: {'x' * 99999}\n", "not '" + "x" * 99),
        ('out: "a\\0b"\n', "cannot hold a NUL"),
        ("a: &a [*a]\n", "aliases without end"),
        ("steps: 2024-99-99\n", "is not YAML: month must be in 1..12"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_a_file_cannot_say_is_one_line(at_home, text, said):
    (at_home / "s.yaml").write_text(text)
    result = call("sweep", "--file", at_home / "s.yaml", *SWEEP)
    assert result.exit_code == 2 and said in result.stderr.splitlines()[-1]
    assert len(result.stderr.splitlines()[-1]) < 400


@pytest.mark.parametrize("path", ["", "a\0b", "n" * 300, "n" * 5000, "m.safetensors/below"])
def test_what_is_no_path_is_a_valueerror(at_home, path):
    for use in (kdiff.load, open_pictures, lambda text: find_reference(text, "any", None)):
        with pytest.raises(ValueError) as caught:
            use(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["", "n" * 300])
@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--model", "mnist", "--steps", "1", "--out"),
        ("sample", "--model"),
        ("inspect",),
        ("report",),
        ("convert", "mnist"),
        ("sweep", "--model", "mnist", *map(str, SWEEP), "--out"),
        ("eval-fid", "--images"),
        ("ref", "make", "name", "--images"),
    ],
)
def test_what_is_no_path_is_one_line(at_home, words, path):
    result = call(*words, path)
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "KDIFF_TRACEBACK" not in result.stderr
