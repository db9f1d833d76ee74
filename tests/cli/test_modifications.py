"""--guide and --edit, in `kdiff sample` and `kdiff eval-fid`, on the packaged models."""

import json
from typing import Annotated

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main, sample_command
from kdiff.cli.run_record import Taken
from kdiff.editing import EDITS, edit
from kdiff.networks.openai_unet import OpenAIUNet
from kdiff.samplers import REGISTRY, Ask, sampler
from small_checkpoints import native_file

MNIST = ("--model", "mnist", "--num", "2")
HEUN = (*MNIST, "--sampler", "heun", "--steps", "3")


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def made(monkeypatch):
    """The samples that `kdiff sample` makes pictures of, in batches."""
    samples, to_uint8 = [], sample_command.to_uint8

    def seen(images):
        samples.append(images.clone())
        return to_uint8(images)

    monkeypatch.setattr(sample_command, "to_uint8", seen)
    return samples


def sample(out, *words):
    """The record of a run."""
    result = call("sample", *words, "--out", out)
    assert result.exit_code == 0, result.output
    return json.loads((out / "run.json").read_text()), result.stdout


def by_library(**settings):
    model = kdiff.load("mnist")
    return kdiff.sample(model, "heun", steps=3, n=2, class_labels=[0, 1], **settings)


def test_a_guided_sample_is_that_of_the_library_and_its_nfe_counts_the_network(tmp_path, made):
    record, told = sample(tmp_path / "out", *HEUN, "--guide", "cfg:scale=2")
    assert torch.equal(made[-1], by_library(guide="cfg:scale=2"))
    assert not torch.equal(made[-1], by_library())
    assert (record["nfe"], record["asks"]) == (10, 5)
    assert record["guidance"] == [{"name": "cfg", "options": {"scale": 2.0}}]
    assert "heun, 3 steps, cfg:scale=2.0, NFE 10 (5 asks)" in told


def test_scale_1_is_the_unguided_run(tmp_path, made):
    plain, told = sample(tmp_path / "plain", *HEUN)
    record, _ = sample(tmp_path / "guided", *HEUN, "--guide", "classifier_free:scale=1")
    assert torch.equal(*made)
    assert record["nfe"] == plain["nfe"] == 5
    assert record.keys() - plain.keys() == {"guidance"} and "edits" not in plain
    assert "asks" not in record and "asks" not in told


def test_guides_stand_around_each_other_in_their_order(tmp_path, made):
    guides = ("cfg:scale=2", "cfg:scale=0.5")
    words = [word for guide in guides for word in ("--guide", guide)]
    record, _ = sample(tmp_path / "out", *HEUN, *words)
    model = kdiff.guide(kdiff.guide(kdiff.load("mnist"), guides[0]), guides[1])
    labels = [0, 1]
    assert torch.equal(made[-1], kdiff.sample(model, "heun", steps=3, n=2, class_labels=labels))
    assert [guide["options"]["scale"] for guide in record["guidance"]] == [2.0, 0.5]
    assert (record["nfe"], record["asks"]) == (10, 5)  # u of u is u


def test_deterministic_and_compiled_guidance(tmp_path, made, monkeypatch):
    compiled = []
    monkeypatch.setattr(kdiff.Denoiser, "compile", lambda model: compiled.append(model))
    words = ("--guide", "cfg", "--deterministic")
    sample(tmp_path / "one", *HEUN, *words, "--batch", 1, "--compile")
    sample(tmp_path / "two", *HEUN, *words)
    assert torch.equal(torch.cat(made[:2]), made[2]) and len(compiled) == 1


@pytest.fixture
def clamped():
    @edit("clamped", paper="the range of the data")
    def clamped(start, x, sigmas, *, noise, most: Annotated[float, kdiff.Option("bound", 0)] = 1.0):
        walk = start(x, sigmas)
        while walk.asks:
            answers = yield list(walk.asks)
            walk.answer(*(d.clamp(-most, most) for d in answers))
        return walk.result

    yield
    del EDITS["clamped"]


def test_an_edit_is_that_of_the_library(tmp_path, made, clamped):
    record, told = sample(tmp_path / "out", *HEUN, "--edit", "Clamped:most=0.25")
    assert torch.equal(made[-1], by_library(edits=["clamped:most=0.25"]))
    assert made[-1].abs().max() <= 0.25
    assert record["edits"] == [{"name": "clamped", "options": {"most": 0.25}}]
    assert record["nfe"] == 5 and "clamped:most=0.25, NFE 5," in told
    listed = json.loads(call("list", "edits", "--json").stdout)
    (clamped,) = (row for row in listed if row["name"] == "clamped")
    assert clamped["options"]["most"]["help"] == "bound"


@pytest.fixture
def adaptive():
    """A sampler that asks once more about the first sample of each batch."""

    @sampler("twice", order=1, paper="none", nfe=None, limit=10)
    def twice(x, sigmas):
        """It asks about the first sample again."""
        d = (yield x, sigmas[0]).clone()
        d[:1] = yield Ask(d[:1], sigmas[0], rows=[0])
        return d

    yield
    del REGISTRY["twice"]


def test_an_adaptive_sampler_says_what_it_took(tmp_path, adaptive):
    words = (*MNIST, "--sampler", "twice", "--steps", 1)
    record, told = sample(tmp_path / "plain", *words)
    assert record["nfe"] == 2 and "asks" not in record and "NFE 2," in told
    record, told = sample(tmp_path / "guided", *words, "--guide", "cfg", "--batch", 1)
    assert (record["nfe"], record["asks"]) == (4, 2)
    film = ("--trajectory", tmp_path / "film.gif", "--out", tmp_path / "film")
    refused = call("sample", *words, *film)
    assert refused.exit_code == 2 and "leave out --trajectory" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guided", "plain"]
    json_rows = json.loads(call("list", "--json").stdout)
    assert {row["name"]: row["nfe_20_steps"] for row in json_rows}["twice"] is None
    assert "unknown" in call("list").stdout


def test_a_sampler_that_does_not_end_is_one_line(tmp_path, adaptive, monkeypatch):
    monkeypatch.setattr(kdiff.Plan, "limit", 1)
    result = call("sample", *MNIST, "--sampler", "twice", "--steps", 1, "--out", tmp_path / "out")
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == 1 and line.startswith("Error: twice has not ended after 1 eval")


def eval_fid(tmp_path, *words):
    np.savez(tmp_path / "ref.npz", mu=np.zeros(12), sigma=np.eye(12))
    few = ("--model", "mnist", "--num", 4, "--sampler", "heun", "--steps", 3, "--batch", 2)
    toy = ("--ref", tmp_path / "ref.npz", "--features", "own:network")
    return call("eval-fid", *few, *toy, *words)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A feature network for images of any size."""
    monkeypatch.syspath_prepend(tmp_path)
    text = "def network(images): return images.reshape(len(images), -1)[:, :12].astype('f4')\n"
    (tmp_path / "own.py").write_text(text)


def test_eval_fid_records_guidance(tmp_path, own):
    result = eval_fid(tmp_path, "--guide", "cfg:scale=2", "--json")
    assert result.exit_code == 0, result.output
    images = json.loads(result.stdout)["images"]
    assert (images["nfe"], images["asks"]) == (10, 5)
    assert images["guidance"] == [{"name": "cfg", "options": {"scale": 2.0}}]
    table = eval_fid(tmp_path, "--guide", "cfg:scale=2").stdout
    assert "mnist, heun, 3 steps, cfg:scale=2.0, NFE 10 (5 asks)" in table


def test_eval_fid_without_guidance_is_as_ever(tmp_path, own):
    images = json.loads(eval_fid(tmp_path, "--json").stdout)["images"]
    assert images["nfe"] == 5 and not images.keys() & {"asks", "guidance", "edits"}


BAD = {
    "unknown guidance": (
        ["--guide", "ho_salimanns"],
        "did you mean ho_salimans? (see `kdiff list guidance`)",
    ),
    "unknown option": (["--guide", "cfg:scael=2"], "unknown cfg option 'scael'"),
    "bad value": (["--guide", "cfg:scale=much"], "scale must be a number from -100 to 100"),
    "several values": (["--guide", "cfg:scale=1,2"], "scale must be a number from -100 to 100"),
    "no value": (["--guide", "cfg:scale="], "NAME:key=value"),
    "class none": (["--guide", "cfg", "--class-label", "none"], "leave out the class none"),
    "one is none": (["--guide", "cfg", "--class-label", "3,none"], "leave out the class none"),
    "twice by case": (["--guide", "cfg:scale=1:SCALE=2"], "each key once"),
    "no classes": (["--guide", "cfg", "--model", "{tiny}"], "has no classes: leave out the guid"),
    "an edit": (
        ["--guide", "apg:momentum=-0.5"],
        "apg:momentum=-0.5 is an edit: give it as --edit apg:momentum=-0.5",
    ),
    "a guidance": (["--edit", "cfg"], "cfg is a guidance: give it as --guide cfg"),
    "neither": (["--guide", "apg:memory=1"], "unknown apg option 'memory'; there is scale"),
    "no classes to edit by": (["--edit", "apg", "--model", "{tiny}"], "has no classes: leave out"),
    "unknown edit": (["--edit", "inpaint"], "(see `kdiff list edits`)"),
}


@pytest.mark.parametrize("name", ["sample", "eval-fid"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(case, name, tmp_path):
    words, message = BAD[case]
    tiny = native_file(tmp_path / "tiny", 4)
    result = call(name, "--out", tmp_path / "out", *(word.format(tiny=tiny) for word in words))
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line and line == result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [tiny]


@pytest.mark.parametrize("name", ["sample", "eval-fid", "sweep"])
@pytest.mark.parametrize(
    "words",
    [
        ["--guide", "cfg"],
        ["--guide", "cfg:scale=1", "--guide", "cfg:scale=0"],
        ["--class-label", "none"],
    ],
)
def test_a_model_without_a_null_class_is_refused_before_anything_is_written(name, words, tmp_path):
    if name == "sweep" and "--guide" not in words:
        return
    model = openai_file(tmp_path / "openai.safetensors")
    few = ("--metrics", "none") if name == "sweep" else ()
    result = call(name, "--model", model, "--out", tmp_path / "out", "--num", 2, *few, *words)
    assert result.exit_code == 2, result.output
    assert "has no null class: leave out the" in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [model]


def test_guidance_by_the_class_alone_needs_no_null_class(tmp_path):
    model = openai_file(tmp_path / "openai.safetensors")
    words = ("--model", model, "--num", 1, "--sampler", "euler", "--steps", 1)
    result = call("sample", *words, "--guide", "cfg:scale=1", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output


def openai_file(path):
    """A model of three classes, which was trained without a null class."""
    torch.manual_seed(0)
    network = OpenAIUNet(32, [1], 1, [], num_classes=3)
    model = kdiff.Denoiser(network, "edm", shape=(3, 8, 8), classes="abc", name="openai")
    native.save(path, network.state_dict(), native.describe(model))
    return path


def test_guidance_is_for_models_not_for_images(tmp_path):
    result = call("eval-fid", "--images", tmp_path, "--guide", "cfg")
    assert result.exit_code == 2
    assert "--guide is for images that a model makes, not for --images" in result.stderr


def test_several_processes_say_what_the_one_that_took_most_did():
    assert (Taken(6, 3) + Taken(4, 4)).record() == {"nfe": 6, "asks": 4}
    assert (Taken() + Taken(4, 4)).record() == {"nfe": 4}
