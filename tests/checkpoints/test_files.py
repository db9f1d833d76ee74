"""A format reads exactly the files that it says, and the hash in results covers them."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import kdiff
import nvidia_pickles
from checkpoint_layouts import (
    CASES,
    PIPELINES,
    a_config_beside_it,
    a_linked_unet,
    on_linux,
    pipeline,
    unet,
)
from kdiff.checkpoints import files, find_format, formats
from kdiff.cli import main
from kdiff.models import sha256
from opened_files import opened_files

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the exporters


def add_others(path):
    """Add files that look as if they belonged to the model at `path`, but are not read."""
    folder = path if path.is_dir() else path.parent
    for name in ("README.md", "model.json.bak", "tokenizer/vocab.json", "checker/model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    for config in list(folder.rglob("config.json")):
        weights = "diffusion_pytorch_model"
        save_file({"w": torch.zeros(1)}, config.parent / f"{weights}.fp16.safetensors")
        if (
            list(config.parent.glob(f"{weights}*.safetensors.index.json"))
            or (config.parent / f"{weights}.safetensors").exists()
        ):
            torch.save({"w": torch.zeros(1)}, config.parent / f"{weights}.bin")


def by_hand(paths, folder):
    """The hash of several files, as docs/checkpoints.md defines it."""
    lines = ""
    for path in sorted(paths):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines += f"{digest}  {path.relative_to(folder).as_posix()}\n"
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A folder, a model in it, its format, what `load` needs, its hash before `add_others`."""
    format_, write = CASES[request.param]
    folder = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as monkeypatch:
        nvidia_pickles.nvidia_names(monkeypatch)
        path, options = write(folder)
    before = sha256(path)
    add_others(path)
    return folder, path, format_, options, before


def test_every_format_is_here():
    assert {format_ for format_, _ in CASES.values()} >= formats().keys()


@on_linux
def test_the_files_that_are_listed_are_opened_and_no_others(case):
    folder, path, format_, options, _ = case
    with opened_files(folder) as opened:
        kdiff.load(path, **options)
    assert opened == {file.resolve() for file in files(path)}
    found = find_format(path).NAME
    assert found == format_


def test_the_hash_is_of_the_files_that_are_listed(case):
    _, path, _, _, before = case
    listed = files(path)
    if listed == [path]:
        assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        assert before == by_hand(listed, path if path.is_dir() else path.parent)
    assert sha256(path) == before


@pytest.mark.parametrize("write", PIPELINES)
def test_the_hash_of_a_folder_that_has_nothing_else_is_of_all_its_files(write, tmp_path):
    path, _ = write(tmp_path)
    assert sha256(path) == by_hand([p for p in path.rglob("*") if p.is_file()], path)


def test_pipelines_with_a_link_to_their_unet_differ_as_it_does(tmp_path):
    for seed in (0, 1):
        unet(seed).save_pretrained(tmp_path / f"unet{seed}")
        pipeline(tmp_path / f"p{seed}")
        shutil.rmtree(tmp_path / f"p{seed}" / "unet")
        (tmp_path / f"p{seed}" / "unet").symlink_to(tmp_path / f"unet{seed}")
    assert sha256(tmp_path / "p0") != sha256(tmp_path / "p1")
    assert sha256(tmp_path / "p0") == sha256(pipeline(tmp_path / "whole"))


def test_the_hash_of_a_unet_is_of_the_scheduler_beside_it_too(tmp_path):
    path, _ = a_linked_unet(tmp_path)
    before = sha256(path)
    assert before == sha256(tmp_path / "pipeline" / "unet")
    file = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("epsilon", "v_prediction"))
    assert sha256(path) != before


@on_linux
def test_a_setting_that_names_other_files_is_followed(tmp_path):
    network = unet()
    for variant in (None, "fp16"):
        network.save_pretrained(tmp_path / "unet", variant=variant)
    named, options = a_config_beside_it(tmp_path)
    config = tmp_path / "elsewhere" / "config.json"
    config.parent.mkdir()
    shutil.copy(named.with_suffix(".json"), config)
    for path, told in ((tmp_path / "unet", {"variant": "fp16"}), (named, {"config": str(config)})):
        hashed = sha256(path, **told)
        assert hashed != sha256(path)
        with opened_files(tmp_path) as opened:
            kdiff.load(path, **told, **options)
        listed = {file.resolve() for file in files(path, **told)}
        beside = {named.with_suffix(".json")}  # a k-diffusion file is recognised by it
        assert listed <= opened <= listed | beside
        (file,) = {config, tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors"} & listed
        file.write_bytes(file.read_bytes() + b" ")
        assert sha256(path, **told) != hashed


def test_commands_hash_what_they_are_told_to_read(tmp_path):
    unet().save_pretrained(tmp_path / "unet", variant="fp16")
    out = ["--num", "1", "--steps", "1", "--out", str(tmp_path / "out")]
    model = ["--model", str(tmp_path / "unet"), "--set", "variant=fp16"]
    result = CliRunner().invoke(main, ["sample", *model, *out])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model_sha256"] == sha256(tmp_path / "unet", variant="fp16")


def test_what_is_no_checkpoint_has_no_hash(tmp_path):
    (tmp_path / "notes.txt").write_text("1")
    with pytest.raises(ValueError, match="is of no format that kdiff reads"):
        sha256(tmp_path / "notes.txt")


def test_another_packages_format_lists_the_files_of_a_folder(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    mine = SimpleNamespace(NAME="mine", detect=lambda path: None)
    monkeypatch.setattr(kdiff.checkpoints, "formats", lambda: {"mine": mine})
    assert sha256(tmp_path / "a") == hashlib.sha256(b"a").hexdigest()
    with pytest.raises(ValueError, match="mine does not say which files it reads"):
        sha256(tmp_path)
    mine.files = lambda path: [tmp_path / "b", tmp_path / "a"]
    assert sha256(tmp_path) == by_hand([tmp_path / "a", tmp_path / "b"], tmp_path)
