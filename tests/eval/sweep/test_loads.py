"""How often a sweep loads its models."""

import shutil

import pytest
from click.testing import CliRunner

import kdiff
from kdiff.cli import main
from kdiff.eval.sweep import Models, ModelSpec
from small_sweeps import TOY, lines


@pytest.fixture
def loads(monkeypatch):
    """The names of what is loaded, in order."""
    names, load = [], kdiff.load

    def counting(path, *given, **keywords):
        names.append(path.stem)
        return load(path, *given, **keywords)

    monkeypatch.setattr(kdiff, "load", counting)
    return names


def test_each_model_is_loaded_once(workplace, tmp_path, loads):
    other = tmp_path / "other.safetensors"
    shutil.copy(workplace / "tiny.safetensors", other)
    words = [
        *("sweep", "--model", f"{workplace / 'tiny.safetensors'},{other}"),
        *("--features", TOY, "--ref", workplace / "reference.npz", "--metrics", "fid"),
        *("--steps", "2,3", "--num", 20, "--first-seed", "0,20,40,60"),
        *("--guide", "cfg:scale=0,2", "--out", tmp_path / "out"),
    ]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert sorted(loads) == ["other", "tiny"] and len(lines(tmp_path / "out")) == 2 * 2 * 4 * 2


def test_only_one_model_is_kept_once_cells_are_computed(workplace, tmp_path, loads):
    specs = []
    for name in "ab":
        path = tmp_path / f"{name}.safetensors"
        shutil.copy(workplace / "tiny.safetensors", path)
        specs.append(ModelSpec(name, path, name))
    models = Models()
    for spec in specs:
        models.load(spec)
    for spec in (specs[0], specs[0], specs[1], specs[1]):
        models.on("cpu", spec, kdiff.load(spec.path).dtype)
    assert loads[:2] == ["a", "b"] and len(loads) == 2 + 4  # the four are this test's own
    models.load(specs[0])
    assert len(loads) == 7
