"""--prompt and what goes with it, on a tiny Stable Diffusion folder."""

import json

import diffusers
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kdiff
import text_pipelines
from kdiff.cli import main
from kdiff.hashes import sha256_of_file
from kdiff.images import to_uint8

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

PROMPTS = ["a red cat", "blue dog, a photo"]
FAST = ["--sampler", "euler", "--steps", 2, "--schedule", "trailing"]
SMALL = ["--width", 32, "--height", 16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made")
    text_pipelines.stable_diffusion(made).save_pretrained(made / "sd")
    return made / "sd"


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    made = tmp_path_factory.mktemp("made")
    text_pipelines.flux(made).save_pretrained(made / "flux")
    return made / "flux"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "prompts.txt").write_text(f"{PROMPTS[0]}\n\n{PROMPTS[1]}\r\n")
    return tmp_path / "prompts.txt"


def call(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def works(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def asked(*prompts):
    return [word for prompt in prompts for word in ("--prompt", prompt)]


def test_pictures_of_prompts(folder, tmp_path):
    out = tmp_path / "out"
    works("sample", "--model", folder, *FAST, *SMALL, *asked(*PROMPTS), "--out", out)
    model = kdiff.load(folder).resized(32, 16)
    latents = kdiff.sample(model, "euler", steps=2, schedule="trailing", prompt=PROMPTS)
    for seed, image in enumerate(to_uint8(model.decode(latents))):
        with Image.open(out / f"{seed:06d}.png") as picture:
            np.testing.assert_allclose(np.asarray(picture), image, atol=1)
    record = json.loads((out / "run.json").read_text())
    assert record["seeds"] == [0, 1]  # one picture a prompt
    assert record["text"] == {
        "prompts": PROMPTS,
        "negative": None,
        "width": 32,
        "height": 16,
        "encoders_sha256": model.texts.sha256(),
    }


def test_prompts_in_turn_from_a_file(folder, file, tmp_path):
    common = ["sample", "--model", folder, *FAST, "--num", 3, "--out"]
    works(*common, tmp_path / "file", "--prompts", file)
    works(*common, tmp_path / "words", *asked(*PROMPTS, PROMPTS[0]))
    for seed in range(3):
        one, other = (tmp_path / name / f"{seed:06d}.png" for name in ("file", "words"))
        assert one.read_bytes() == other.read_bytes()
    record = json.loads((tmp_path / "file/run.json").read_text())
    assert record["text"]["prompts"] == {"sha256": sha256_of_file(file), "n": 2}


def test_distilled_guidance(flux, tmp_path):
    common = ["sample", "--model", flux, *FAST, *SMALL, *asked("a cat"), "--out"]
    works(*common, tmp_path / "usual")
    works(*common, tmp_path / "told", "--distilled-guidance", 3.5)
    works(*common, tmp_path / "other", "--distilled-guidance", 1)
    pictures = [
        (tmp_path / name / "000000.png").read_bytes() for name in ("usual", "told", "other")
    ]
    assert pictures[0] == pictures[1] != pictures[2]
    record = json.loads((tmp_path / "usual/run.json").read_text())
    assert record["text"]["distilled_guidance"] == 3.5


def test_evaluation(folder, file, tmp_path):
    judged = ["--features", "cifar10-classifier", "--num", 4, "--batch", 3]
    common = ["eval-fid", "--model", folder, *FAST, "--width", 32, "--height", 32, *judged]
    works(*common, "--prompts", file, "--out", tmp_path / "file.json")
    works(*common, *asked(*PROMPTS), "--out", tmp_path / "words.json")
    works(*common, *asked(PROMPTS[0]), "--out", tmp_path / "one.json")
    figures = [
        json.loads((tmp_path / f"{name}.json").read_text())["metrics"]
        for name in ("file", "words", "one")
    ]
    assert figures[0] == figures[1] != figures[2]
    assert json.loads((tmp_path / "one.json").read_text())["images"]["text"]["width"] == 32


def cell(*arguments, out, metrics="none"):
    """The line of a sweep of one cell, and its pictures."""
    works("sweep", *FAST, "--num", 3, "--batch", 2, "--metrics", metrics, *arguments, "--out", out)
    line = json.loads((out / "cells.jsonl").read_text())
    return line, (out / line["grid"]).read_bytes()


def test_sweeps(folder, file, tmp_path):
    """Cells with other prompts, or another size, have other keys and pictures; with the same ones
    from YAML, the same."""
    two = ["--model", folder, *asked(*PROMPTS)]
    first, pictures = cell(*two, out=tmp_path / "words", metrics="rmse")
    assert first["metrics"]["RMSE"]["value"] > 0
    first, _ = cell(*two, out=tmp_path / "none")
    yaml = tmp_path / "sweep.yaml"
    yaml.write_text(json.dumps({"model": str(folder), "prompt": PROMPTS}))
    again, same = cell("--file", yaml, out=tmp_path / "yaml")
    assert again["key"] == first["key"] and again["cell"]["text"]["prompts"] == PROMPTS
    filed, from_file = cell("--model", folder, "--prompts", file, out=tmp_path / "file")
    other, changed = cell("--model", folder, *asked(PROMPTS[0]), out=tmp_path / "one")
    small, wide = cell(*two, *SMALL, out=tmp_path / "small")
    assert len({line["key"] for line in (first, other, small, filed)}) == 4
    assert same == from_file == pictures
    assert len({pictures, changed, wide}) == 3


REFUSED = {
    "sd makes pictures of prompts: give --prompt TEXT": [],
    "give --prompt TEXT, or --prompts FILE": ["--width", 32],
    "width must be a multiple of 2, not 31: take 30 or 32": [*asked("a"), "--width", 31],
    "--negative-prompt is for guidance: add --guide": [*asked("a"), "--negative-prompt", "b"],
    "is for guidance: add": [*asked("a"), "--negative-prompt", "b", "--guide", "interval"],
    "the guidance perp_neg needs --negative-prompt": [*asked("a"), "--guide", "perp_neg"],
    "give only one of --prompt and --prompts": [*asked("a"), "--prompts", "FILE"],
    "sd has no distilled guidance": [*asked("a"), "--distilled-guidance", 3],
    "has no prompts: write one a line": ["--prompts", "EMPTY"],
}


@pytest.mark.parametrize("command", ["sample", "eval-fid", "sweep"])
@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message, command, folder, file, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    named = {"FILE": file, "EMPTY": tmp_path / "empty.txt"}
    told = [named.get(word, word) for word in REFUSED[message]]
    refused(message, tmp_path, command, "--model", folder, *told)


@pytest.mark.parametrize("command", ["sample", "eval-fid", "sweep"])
def test_a_model_without_text(command, tmp_path):
    for told in (asked("a cat"), ["--width", 64]):
        message = "cifar10 takes no prompts; leave out --prompt and what goes with it"
        refused(message, tmp_path, command, *told)


def test_a_folder_without_its_encoder(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("unet", "vae", "scheduler", "tokenizer"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        (tmp_path / "bare" / part).symlink_to(folder / part)
    (tmp_path / "bare/model_index.json").write_text(json.dumps(index))
    why = "the folder has no text_encoder"
    bare = ["sample", "--model", tmp_path / "bare"]
    refused(f"bare needs prompts, and cannot take any: {why}", tmp_path, *bare)
    refused(f"bare takes no prompts: {why}; leave out --prompt", tmp_path, *bare, *asked("a"))


def test_images_on_disk_take_no_prompts(tmp_path):
    refused("is for images that a model makes", tmp_path, "eval-fid", "--images", "x", *asked("a"))


def refused(message, tmp_path, *arguments):
    out = tmp_path / "out"
    result = call(*arguments, *["--metrics", "none"][: 2 * ("sweep" in arguments)], "--out", out)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert message in line
    assert not out.exists()
