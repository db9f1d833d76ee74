"""What every checkpoint format must do, on a small file of each."""

import inspect
import pickle

import pytest
import torch

import kdiff
import nvidia_pickles
from kdiff.checkpoints import files, find_format, formats, native
from kdiff.denoiser import Denoiser
from kdiff.model import Model
from kdiff.model_check import not_finite
from kdiff.models import sha256
from small_checkpoints import KINDS
from small_networks import fill

PROGRAMS = {"torchscript", "exported", "onnx"}  # whose networks are other files'
WIDTH = 8
OF_FORMAT = {  # the smallest set of files that has each other format
    "kdiff": "kdiff",
    "edm": "EDM",
    "edm2": "EDM2",
    "openai": "openai",
    "lucidrains": "lucidrains",
    "score_sde": "score_sde",
    "k-diffusion": "k-diffusion, .pth",
    "diffusers": "diffusers",
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    nvidia_pickles.nvidia_names(monkeypatch)

    def make(name):
        write, _, told = KINDS[OF_FORMAT[name]]
        width = 32 if name in ("openai", "edm2") else WIDTH
        return write(tmp_path / "m.pt", width), told

    return make


def members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_")]


def test_every_format_is_in_these_tests_or_has_its_own():
    assert formats().keys() == OF_FORMAT.keys() | PROGRAMS | {"edm-weights"}


@pytest.mark.parametrize("name", formats())
def test_it_declares_what_a_format_is(name):
    module = formats().find(name.upper()).thing
    assert module is formats()[name] and name == module.NAME
    assert list(inspect.signature(module.detect).parameters) == ["path"]
    path, *rest = inspect.signature(module.load).parameters.values()
    assert path.name == "path" and all(p.default is not p.empty for p in rest if p.name != "told")
    assert inspect.getdoc(module)


@pytest.mark.parametrize("name", formats())
def test_nothing_is_of_its_kind_by_chance(name, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    for path in tmp_path.iterdir():
        reason = formats()[name].detect(path)
        assert isinstance(reason, str) and reason and "\n" not in reason


@pytest.mark.parametrize("name", OF_FORMAT)
def test_it_reads_its_file_into_a_whole_model(name, made):
    path, told = made(name)
    assert name == find_format(path).NAME
    model = kdiff.load(path, **told)
    assert isinstance(model, Denoiser) and all(hasattr(model, key) for key in members(Model))
    assert 0 < model.sigma_min < model.sigma_max and len(model.shape) == 3
    assert model.learned_variance in (True, False)  # known before the network runs
    assert {"format", "parameterisation"} <= model.facts.keys()
    assert all(isinstance(fact, str) and "\n" not in fact for fact in model.facts.values())
    assert not model.network.training and not not_finite(model.network)
    assert not any(p.requires_grad for p in model.network.parameters())
    assert model.dtype == torch.float32
    assert all(file.is_file() for file in files(path, **told))
    assert model.record() == {"name": model.name, "sha256": sha256(path, **told)}


@pytest.mark.parametrize("name", OF_FORMAT)
def test_its_model_is_the_same_once_pickled_and_in_kdiffs_own_format(name, made, tmp_path):
    path, told = made(name)
    model = kdiff.load(path, **told)
    fill(model.network)
    x = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    cond = {"class_labels": torch.zeros(2, dtype=torch.long)} if model.classes else {}
    copies = [pickle.loads(pickle.dumps(model))]
    if name != "diffusers":  # its networks are diffusers' own
        native.save(
            tmp_path / "n.safetensors",
            model.network.state_dict(),
            native.describe(model),
            torch.float32,
        )
        copies.append(kdiff.load(tmp_path / "n.safetensors"))
    with torch.no_grad():
        for sigma in (model.sigma_min, 1.0, model.sigma_max):
            expected = model(x, sigma, **cond)
            assert expected.isfinite().all() and expected.shape == x.shape
            for one in copies:
                assert torch.equal(one(x, sigma, **cond), expected)
    for one in copies:
        assert (one.shape, one.classes, one.sigmas) == (model.shape, model.classes, model.sigmas)
        assert (one.sigma_min, one.sigma_max) == (model.sigma_min, model.sigma_max)
        assert (one.learned_variance, one.sigma_end) == (model.learned_variance, model.sigma_end)
