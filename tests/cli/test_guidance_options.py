"""--guidance and --negative-label, guidance with a second network, and what all of them refuse."""

import json

import numpy as np
import pytest

import kdiff
import toy_guidance
from guided_runs import few, sample
from kdiff.images import to_uint8
from tiny_models import kdiff_cli


def by_library(model, **settings):
    labels = {"class_labels": [0, 1, 2, 0]}
    x = kdiff.sample(kdiff.load(model), "euler", steps=2, n=4, **{**labels, **settings})
    return to_uint8(x)


def refused(result, *messages):
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert line == result.stderr.splitlines()[-1]
    for message in messages:
        assert message in line


def test_guidance_is_short_for_cfg_and_innermost(model, tmp_path, toys):
    plain, unguided = sample(model, tmp_path / "plain")
    record, pictures = sample(model, tmp_path / "short", "--guidance", 3)
    assert np.array_equal(pictures, by_library(model, guide="cfg:scale=3"))
    assert not np.array_equal(pictures, unguided)
    assert record.keys() - plain.keys() == {"guidance", "asks"}
    around = ("--guide", "above:low=1")
    both, pictures = sample(model, tmp_path / "both", *around, "--guidance", 3)
    assert [one["name"] for one in both["guidance"]] == ["cfg", "above"]
    assert (both["nfe"], both["asks"]) == (3, 2)  # two at sigma 80, one at 0.002
    assert np.array_equal(pictures, by_library(model, guide=["cfg:scale=3", "above:low=1"]))


def test_images_take_negative_classes_in_turn_in_any_batch(model, tmp_path):
    words = ("--guidance", 3, "--class-label", "a", "--negative-label", "B, 2", "--deterministic")
    record, pictures = sample(model, tmp_path / "one", *words)
    settings = {"guide": "cfg:scale=3", "class_labels": [0] * 4, "deterministic": True}
    negative = {"negative_class_labels": [1, 2, 1, 2]}
    assert np.array_equal(pictures, by_library(model, **settings, cond=negative))
    assert not np.array_equal(pictures, by_library(model, **settings))
    assert record["negative_class_labels"] == [1, 2, 1, 2] and record["class_labels"] == [0] * 4
    _, again = sample(model, tmp_path / "other", *words, "--batch", 3)
    assert np.array_equal(again, pictures)


def test_the_negative_class_none_is_guidance_as_ever(model, tmp_path):
    _, pictures = sample(model, tmp_path / "out", "--guidance", 3, "--negative-label", "none")
    assert np.array_equal(pictures, by_library(model, guide="cfg:scale=3"))


@pytest.mark.parametrize("name", ["sample", "eval-fid", "sweep"])
def test_a_model_without_a_null_class_is_guided_by_a_negative_class(name, tmp_path, toys):
    model = toy_guidance.without_null_class(tmp_path / "openai.safetensors")
    negative = ("--negative-label", "c")
    if name == "sample":
        _, pictures = sample(model, tmp_path / "out", "--guidance", 2, *negative)
        cond = {"negative_class_labels": [2] * 4}
        assert np.array_equal(pictures, by_library(model, guide="cfg:scale=2", cond=cond))
    call = (name, *few(model, tmp_path / "no"), *(("--metrics", "none") if name == "sweep" else ()))
    also_null = (("--guide", "both"), ("--guidance", 2, "--guide", "nobody"))
    for guide in (("--guidance", 2), *((*some, *negative) for some in also_null)):
        refused(kdiff_cli(*call, *guide), "has no null class: leave out the guidance")
    none = ("--negative-label", "c,none")
    refused(kdiff_cli(*call, "--guidance", 2, *none), "no null class: leave out the class none")
    assert not (tmp_path / "no").exists()


BAD = {
    "not a number": (["--guidance", "much"], "--guidance: scale must be a number from -100 to 100"),
    "nan": (["--guidance", "nan"], "--guidance: scale must be a number from -100 to 100"),
    "nothing": (["--guidance", ""], "--guidance"),
    "too large": (["--guidance", "101"], "from -100 to 100, not '101'"),
    "twice": (["--guidance", "2", "--guide", "CFG:scale=2"], "give only one of the two"),
    "no classes": (["--guidance", "2", "--model", "{plain}"], "plain has no classes: leave out"),
    "no such class": (
        ["--guidance", "2", "--negative-label", "dog"],
        "unknown class 'dog'; tiny has none, 0 to 2, a, b, c",
    ),
    "no such number": (["--guidance", "2", "--negative-label", "3"], "unknown class '3'"),
    "no class at all": (["--guidance", "2", "--negative-label", ""], "unknown class ''"),
    "no guidance": (["--negative-label", "a"], "guidance that leads away from it"),
    "not used": (["--guidance", "1", "--negative-label", "a"], "guidance that leads away from it"),
    "not used either": (["--guide", "nobody", "--negative-label", "a"], "leads away from it"),
    "of no classes": (
        ["--guide", "above", "--guide", "cfg", "--negative-label", "a", "--model", "{plain}"],
        "plain has no classes",
    ),
    "needs a negative": (["--guide", "both"], "the guidance both needs a negative class"),
    "file is missing": (["--guide", "beside:model={missing}"], "missing"),
    "file of another shape": (["--guide", "beside:model={large}"], "large has another shape"),
    "file of another kind": (["--guide", "beside:model={text}"], "text"),
    "wrong sampler": (
        ["--guide", "beside:model={model}", "--sampler", "heun"],
        "the guidance beside is right for euler",
    ),
}


@pytest.mark.parametrize("name", ["sample", "eval-fid", "sweep"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(case, name, model, tmp_path, toys):
    words, *messages = BAD[case]
    files = {
        "model": model,
        "missing": tmp_path / "missing.safetensors",
        "text": tmp_path / "text.md",
        "plain": toy_guidance.without_classes(tmp_path / "plain.safetensors"),
        "large": toy_guidance.with_classes(tmp_path / "large.safetensors", side=16),
    }
    files["text"].write_text("not a model\n")
    before = sorted(tmp_path.iterdir())
    none = ("--metrics", "none") if name == "sweep" else ()
    words = [word.format(**files) for word in words]
    refused(kdiff_cli(name, *few(model, tmp_path / "out"), *none, *words), *messages)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["sample", "eval-fid"])
def test_a_list_of_scales_is_for_sweeps(name, model, tmp_path):
    result = kdiff_cli(name, *few(model, tmp_path / "out"), "--guidance", "1,2")
    refused(result, "--guidance: scale must be a number from -100 to 100, not '1,2'")


def test_a_network_beside_the_model_is_recorded_with_its_hash(model, tmp_path, toys):
    other = toy_guidance.with_classes(tmp_path / "other.safetensors", 1)
    guide = ("--guide", f"beside:model={other}")
    record, _ = sample(model, tmp_path / "out", *guide)
    named = {"name": "other", "sha256": kdiff.models.sha256(other)}
    assert record["guidance"] == [{"name": "beside", "options": {"model": named}}]
    told = kdiff_cli("sample", *few(model, tmp_path / "again"), *guide).stdout
    assert "euler, 2 steps, beside:model=other, NFE 4 (2 asks)" in told


def test_eval_fid_records_what_it_leads_away_from(model, tmp_path, monkeypatch):
    np.savez(tmp_path / "ref.npz", mu=np.zeros(24), sigma=np.eye(24))
    toy = ("--features", "small_sweeps:toy_features", "--ref", tmp_path / "ref.npz", "--json")
    words = few(model, tmp_path / "record.json")[:-2]
    found = {}
    for label in (None, "a", "b,c"):
        negative = () if label is None else ("--negative-label", label)
        result = kdiff_cli("eval-fid", *words, *toy, "--guidance", 3, *negative)
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        assert record["images"].get("negative_class_labels") == label
        ((found[label], *_),) = (figure.values() for figure in record["metrics"].values())
    assert len(set(found.values())) == 3


# --- showing what guidance asks ---


def test_explain_names_what_each_answer_asks_the_network(toys):
    guides = ("--guidance", 2, "--guide", "above:low=1")
    told = kdiff_cli("explain", "heun", "--steps", 3, *guides).stdout.splitlines()
    assert "guidance cfg:scale=2.0, above:low=1.0" in told and "NFE      8 (5 asks)" in told
    rows = [line for line in told if line.lstrip().startswith("D")]
    asked = ["conditional, unconditional  "] * 3 + ["conditional  "] * 2
    assert len(rows) == 5 and all(map(str.__contains__, rows, asked))
    found = json.loads(kdiff_cli("explain", "heun", "--steps", 3, *guides, "--json").stdout)
    both = ["conditional", "unconditional"]
    assert [ask["questions"] for ask in found["asks"]] == [both] * 3 + [["conditional"]] * 2
    assert found["nfe"] == 8 and [one["name"] for one in found["guidance"]] == ["cfg", "above"]
    paid = json.loads(kdiff_cli("explain", "euler", "--nfe", 5, *guides, "--json").stdout)
    assert paid["steps"] == 3 and paid["nfe"] == 5


def test_explain_without_guidance_is_as_ever(toys):
    plain = kdiff_cli("explain", "heun", "--steps", 3)
    assert "asks for" not in plain.stdout and "NFE      5\n" in plain.stdout
    found = json.loads(kdiff_cli("explain", "heun", "--steps", 3, "--json").stdout)
    assert found["nfe"] == 5 and not {"guidance", "questions"} & {*found, *found["asks"][0]}
    refused(kdiff_cli("explain", "heun", "--guide", "beside"), "beside is right for euler")
    refused(kdiff_cli("explain", "heun", "--guidance", "x"), "--guidance: scale must be a number")


def test_the_list_of_guidance_says_what_each_asks_and_where_it_is_from(toys):
    rows = {row["name"]: row for row in json.loads(kdiff_cli("list", "guidance", "--json").stdout)}
    assert rows["cfg"]["asks"] == ["conditional", "unconditional"]
    assert rows["beside"]["asks"] == ["conditional", "other"]
    assert all(row["paper"] and row["asks"] for row in rows.values())
    told = kdiff_cli("list", "guidance").stdout
    assert "conditional, unconditional" in told and "`kdiff list edits`" in told.splitlines()[-1]
    assert "kdiff list edits" not in kdiff_cli("list", "samplers").stdout
