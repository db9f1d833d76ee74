"""The command line as a person uses it, on the packaged model."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import kdiff
from kdiff.cli import main
from kdiff.images import to_uint8


def kdiff_cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_sample_writes_a_png_a_seed_a_grid_and_a_record(tmp_path):
    out = tmp_path / "out"
    result = kdiff_cli("sample", "--steps", 3, "--num", 3, "--seed", 5, "--out", out)
    assert result.exit_code == 0, result.output
    names = ["000005.png", "000006.png", "000007.png", "grid.png", "run.json"]
    assert sorted(p.name for p in out.iterdir()) == names
    record = json.loads((out / "run.json").read_text())
    assert (record["sampler"], record["nfe"], record["seeds"]) == ("dpmpp_2m", 3, [5, 6, 7])
    assert len(record["sigmas"]) == 4 and len(record["model_sha256"]) == 64
    assert record["environment"]["torch"] == torch.__version__


def test_pictures_are_those_of_the_library(tmp_path):
    out = tmp_path / "out"
    kdiff_cli("sample", "--sampler", "Euler a", "--steps", 2, "--seeds", "3,1", "--out", out)
    images = kdiff.sample(
        kdiff.load(), "euler_ancestral", steps=2, seeds=[3, 1], class_labels=[0, 1]
    )
    expected = to_uint8(images).astype(int)
    for image, seed in zip(expected, (3, 1), strict=True):
        assert np.abs(pixels(out / f"{seed:06d}.png") - image).max() <= 1


def test_json_summary_and_every_setting(tmp_path):
    out = tmp_path / "out"
    result = kdiff_cli(
        *("sample", "--sampler", "DPM++ 2M SDE Heun Exponential", "--nfe", 4, "--num", 2),
        *("--sigma-min", 0.01, "--sigma-max", 50, "--final", "sigma_min", "--option", "eta=0.5"),
        *("--class-label", "cat,none", "--dtype", "bfloat16", "--deterministic", "--json"),
        *("--out", out),
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["options"] == {"eta": 0.5, "s_noise": 1.0, "solver_type": "heun"}
    assert summary["schedule"] == "exponential" and summary["class_labels"] == [3, -1]
    assert (summary["sigmas"][0], summary["sigmas"][-1]) == (50, 0.01)
    assert summary["nfe"] == 4 and summary["dtype"] == "bfloat16"


def test_trajectory_has_a_frame_an_evaluation(tmp_path):
    film = tmp_path / "film.gif"
    arguments = ("--sampler", "heun", "--steps", 3, "--num", 2, "--trajectory", film)
    result = kdiff_cli("sample", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with Image.open(film) as gif:
        assert gif.n_frames == 5 == kdiff.samplers.REGISTRY["heun"].nfe(3)
    refused = kdiff_cli("sample", "--trajectory", film, "--out", tmp_path / "other")
    assert refused.exit_code == 2 and "film.gif exists" in refused.stderr


BAD = {
    "steps below 1": (["--steps", "0"], "steps must be a whole number, at least 1"),
    "sigmas swapped": (["--sigma-min", "90"], "sigma_min must be above 0 and below sigma_max"),
    "no images": (["--num", "0"], "--num must be at least 1"),
    "unknown class": (["--class-label", "dragon"], "unknown class 'dragon'"),
    "class out of range": (["--class-label", "10"], "unknown class '10'"),
    "unknown sampler": (["--sampler", "hoin"], "did you mean heun"),
    "unknown schedule": (["--schedule", "karas"], "did you mean karras"),
    "unknown option": (["--option", "etta=1"], "unknown dpmpp_2m option 'etta'"),
    "option without value": (["--option", "eta"], "KEY=VALUE"),
    "option out of range": (["--sampler", "ddim", "--option", "eta=2"], "from 0 to 1"),
    "steps and nfe": (["--steps", "3", "--nfe", "3"], "only one of steps, nfe"),
    "rho for exponential": (["--schedule", "exponential", "--rho", "5"], "no setting 'rho'"),
    "discrete grid": (["--schedule", "leading"], "needs a discrete-time model"),
    "bad seeds": (["--seeds", "5-"], "--seeds takes"),
    "empty seeds": (["--seeds", "5-3"], "names no seed"),
    "negative seed": (["--seed", "-1"], "seeds must be from 0"),
    "batch of none": (["--batch", "0"], "--batch must be at least 1"),
    "unknown model": (["--model", "nothing.pt"], "no model 'nothing.pt'"),
    "unknown device": (["--device", "cuda:77"], "no device 'cuda:77'"),
    "nonsense device": (["--device", "toaster"], "no device 'toaster'"),
    "trajectory suffix": (["--trajectory", "film.mp4"], "writes a .gif"),
    "trajectory nowhere": (["--trajectory", "/nowhere/film.gif"], "cannot write into /nowhere"),
    "seed and seeds": (["--seed", "1", "--seeds", "2"], "only one of --seed and --seeds"),
    "too many images": (["--num", "10000000000"], "at most 1000000 images"),
    "too many seeds": (["--seeds", "0-10000000000"], "at most 1000000 images"),
    "device without numbers": (["--device", "meta"], "no device 'meta'"),
    "empty schedule": (["--schedule", ""], "unknown schedule ''"),
    "infinite noise": (["--sampler", "euler a", "--option", "s_noise=inf"], "s_noise must be"),
    "rho nan": (["--rho", "nan"], "rho must be a number, not nan"),
    "nan sigma": (["--sigma-max", "nan"], "sigma_max must be a number, not nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(case, tmp_path):
    arguments, message = BAD[case]
    out = tmp_path / "out"
    result = kdiff_cli("sample", "--out", out, *arguments)
    assert result.exit_code == 2
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
    assert message in line and line == result.stderr.splitlines()[-1]
    assert not out.exists()


def test_class_names_that_are_their_numbers_are_said_once(tmp_path):
    out = tmp_path / "out"
    refused = kdiff_cli("sample", "--model", "mnist", "--class-label", "ten", "--out", out)
    assert refused.stderr.endswith("unknown class 'ten'; mnist has none, 0 to 9\n")


def test_a_folder_that_is_not_empty_needs_overwrite(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    refused = kdiff_cli("sample", "--out", tmp_path, "--steps", 1, "--num", 1)
    assert refused.exit_code == 2 and "not empty" in refused.stderr
    allowed = kdiff_cli("sample", "--out", tmp_path, "--steps", 1, "--num", 1, "--overwrite")
    assert allowed.exit_code == 0 and (tmp_path / "000000.png").exists()
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_overwriting_leaves_no_record_of_the_earlier_run(tmp_path, monkeypatch):
    kdiff_cli("sample", "--out", tmp_path / "out", "--steps", 1, "--num", 1)
    monkeypatch.setattr(kdiff.Denoiser, "__call__", lambda self, x, sigma, **_: x / 0)
    again = kdiff_cli("sample", "--out", tmp_path / "out", "--num", 1, "--overwrite")
    assert again.exit_code == 1 and "not finite in step 1 of 20" in again.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["000000.png"]


def test_an_unwritable_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below"):
        result = kdiff_cli("sample", "--out", out, "--steps", 1)
        assert result.exit_code == 2 and "Error: " in result.stderr


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_model_file_is_refused(content, tmp_path):
    broken = tmp_path / "broken.safetensors"
    whole = kdiff.models.find_model("cifar10").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content is None else content)
    result = kdiff_cli("sample", "--model", broken, "--out", tmp_path / "out")
    told = "an empty file" if content == b"" else "not a whole safetensors file"
    assert result.exit_code == 2 and told in result.stderr


def test_ctrl_c_leaves_finished_images_and_no_broken_file(tmp_path):
    out = tmp_path / "out"
    arguments = ["--num", "400", "--batch", "2", "--steps", "3", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from kdiff.cli import main; main()", "sample", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 120
    while not (out / "000003.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped: " in errors and "Traceback" not in errors
    written = sorted(out.iterdir())
    assert 4 <= len(written) < 400
    for path in written:
        assert path.suffix == ".png" and not path.name.startswith(".")
        assert pixels(path).shape == (32, 32, 3)


def test_list_and_explain_speak_to_machines_and_people():
    listed = json.loads(kdiff_cli("list", "samplers", "--json").stdout)
    assert {row["name"] for row in listed} == set(kdiff.samplers.REGISTRY)
    models = json.loads(kdiff_cli("list", "models", "--json").stdout)
    assert [model["name"] for model in models] == ["cifar10", "mnist"]
    for what in ("samplers", "schedules", "models", "formats", "metrics", "features"):
        assert kdiff_cli("list", what).exit_code == 0
    explained = kdiff_cli("explain", "euler", "--steps", 2, "--sigma-max", 10, "--sigma-min", 5)
    assert "0.5 x_T + 0.5 D1" in explained.stdout
    tableau = json.loads(kdiff_cli("explain", "heun", "--steps", 18, "--json").stdout)
    assert tableau["nfe"] == 35 == len(tableau["asks"])


def test_importing_kdiff_imports_nothing_heavy_beside_torch():
    heavy = "torchvision matplotlib diffusers cleanfid scipy PIL click"
    code = f"import kdiff, sys; print([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
