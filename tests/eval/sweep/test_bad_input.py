"""Bad input to a sweep: one line, before anything is computed or written."""

import numpy as np
import pytest

from small_sweeps import RMSE, SMALL, TOY


def test_a_reference_of_another_dimension_is_refused_before_sampling(kdiff_sweep, tmp_path):
    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    judging = ("--metrics", "fid", "--features", TOY, "--ref", tmp_path / "other.npz")
    result = kdiff_sweep(tmp_path / "out", *judging)
    assert result.exit_code == 2 and "24" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_network_that_fails_is_one_line_before_sampling(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", "math:sqrt", "--ref", workplace / "reference.npz")
    result = kdiff_sweep(tmp_path / "out", *judging)
    assert result.exit_code == 2 and "TypeError" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_judged_is_known_before_sampling(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", "cifar10-classifier", "--metrics", "fid", "--num", 4)
    result = kdiff_sweep(tmp_path / "out", "--model", "cifar10,mnist", *judging)
    assert result.exit_code == 2 and "mnist: " in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_single_image_is_refused_where_a_metric_needs_more(kdiff_sweep, workplace, tmp_path):
    judging = ("--features", TOY, "--ref", workplace / "reference.npz", "--num", 1, "--steps", 2)
    result = kdiff_sweep(tmp_path / "out", *judging, "--metrics", "fid")
    assert result.exit_code == 2 and "fid needs at least 2 images" in result.stderr
    assert not (tmp_path / "out").exists()
    assert kdiff_sweep(tmp_path / "out", *judging, *RMSE).exit_code == 0


BAD = {
    **{
        f"empty {option}": ([f"--{option}", text], f"--{option} takes")
        for option in ("model", "sampler", "steps", "nfe", "schedule", "first-seed", "metrics")
        for text in ("", " , ")
    },
    "option of nothing": (["--option", "eta=,"], "--option eta takes"),
    "unknown sampler": (["--sampler", "euler,hoin"], "did you mean heun"),
    "unknown schedule": (["--schedule", "karas"], "did you mean karras"),
    "unknown metric": (["--metrics", "rmes"], "unknown metric 'rmes'; did you mean rmse"),
    "rmse of a network": (["--metrics", "rmse@inception"], "leave out @inception"),
    "option of none": (
        ["--sampler", "euler,heun", "--option", "eta=1"],
        "option of these samplers",
    ),
    "option out of range": (["--sampler", "ddim", "--option", "eta=0,2"], "from 0 to 1, not '2'"),
    "option without value": (["--option", "eta"], "KEY=VALUE"),
    "no steps": (["--steps", "0,5"], "steps must be a whole number, at least 1"),
    "steps of words": (["--steps", "5,ten"], "--steps takes whole numbers such as 5,10,20"),
    "steps and nfe": (["--steps", "5", "--nfe", "5"], "only one of --steps and --nfe"),
    "nfe for no step": (
        ["--sampler", "plms", "--nfe", "0"],
        "nfe of plms must be a whole number, at least 1",
    ),
    "sigmas swapped": (["--sigma-min", "90"], "sigma_min must be above 0 and below sigma_max"),
    "no images": (["--num", "0"], "0 is not in the range"),
    "shared images": (["--num", "20", "--first-seed", "0,10"], "let them be 20 apart"),
    "negative seed": (["--first-seed", "-1"], "a seed must be a whole number from 0"),
    "rmse of noise": (["--sampler", "euler_ancestral"], "all these samplers add noise"),
    "unknown model": (["--model", "nothing.pt"], "no model 'nothing.pt'"),
    "shard of none": (["--shard", "3/2"], "--shard takes I/N"),
    "shard of words": (["--shard", "first"], "--shard takes I/N"),
    "no device": (["--device", "toaster"], "no device 'toaster'"),
    "no reference": (["--metrics", "fid", "--features", TOY, "--ref", "cifra"], "no reference"),
    "no such file": (["--file", "nothing.yaml"], "does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(kdiff_sweep, case, tmp_path):
    arguments, message = BAD[case]
    out = tmp_path / "out"
    result = kdiff_sweep(out, *RMSE, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
    assert message in line and line == result.stderr.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampelr: euler\n", "unknown key 'sampelr'; did you mean sampler?"),
        ("- euler\n", "must have a line `key: value`"),
        ("a: [1\n", "is not YAML"),
        ("option: eta\n", "takes a mapping"),
        ("steps: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("final: never\n", "--final takes a list of zero and sigma_min, not 'never'"),
    ],
)
def test_a_bad_file_is_one_line(kdiff_sweep, tmp_path, text, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    result = kdiff_sweep(tmp_path / "out", "--file", file, *RMSE)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(kdiff_sweep, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    messages = {tmp_path: "no sweep's folder", tmp_path / "mine.txt": "is a file, not a folder"}
    for out, message in messages.items():
        result = kdiff_sweep(out, *SMALL)
        assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
