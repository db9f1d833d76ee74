"""The range of noise levels that data ask for, and the line that says where schedules begin."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import kdiff
from kdiff.checkpoints import native
from kdiff.cli import main
from kdiff.networks import SongUNet
from kdiff.ranges import beginning, suggest
from kdiff.schedules import Range

TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}
WIDE = Range(1e-4, 1e4)


def kdiff_cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def along_one_direction(rho, mean=0.0, n=400, size=48):
    """Data whose second moment is rho^2 in the direction of ones, and 0.01^2 in all others."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(n, size, generator=generator)
    signs = torch.ones(n).view(2, -1) * torch.tensor([[1.0], [-1.0]])
    ones = torch.ones(size) / math.sqrt(size)
    spread = math.sqrt(rho**2 - mean**2)
    return (noise + (mean + spread * signs.reshape(-1, 1)) * ones).reshape(n, 3, 4, 4)


@pytest.mark.parametrize("mean", [0.0, 4.0])
def test_the_range_follows_the_furthest_reach_of_the_data(mean):
    found = suggest(along_one_direction(5.0, mean), WIDE)
    assert found["rho"] == pytest.approx(5, rel=1e-2)
    assert found["sigma_max"] == pytest.approx(20, rel=1e-2)
    assert found["few"] == pytest.approx(10, rel=1e-2)
    assert found["sigma_min"] == pytest.approx(0.004 * found["std"])


def test_the_start_is_short_by_what_is_said():
    """The data at noise level sigma_max, along that direction, and the start."""
    rho = 5.0
    for factor, short in ((4, 0.03), (2, 0.11)):
        sigma = factor * rho
        assert 1 - sigma / math.hypot(sigma, rho) == pytest.approx(short, abs=0.005)


def test_the_range_is_within_the_model_s():
    x = along_one_direction(5.0)
    assert suggest(x, Range(0.01, 14.6)) == {
        **suggest(x, WIDE),
        "sigma_min": 0.01,
        "sigma_max": 14.6,
    }
    assert suggest(x, Range(0.01, 8))["few"] == 8
    flat = suggest(torch.zeros(2, 3, 4, 4), Range(0.01, 8))
    assert 0 < flat["sigma_min"] < flat["few"] <= flat["sigma_max"] <= 8


def wrapped(prediction="eps", **settings):
    return kdiff.wrap(lambda x, t: x, prediction, shape=(3, 8, 8), **settings)


def test_where_schedules_begin_is_said_only_where_it_is_not_the_end():
    said = beginning(wrapped(alphas_cumprod="cosine"))
    assert "begin at sigma 128.3, not at 20,291" in said
    assert "begin at" in beginning(wrapped("iddpm"))
    assert beginning(wrapped()) is beginning(wrapped("v", alphas_cumprod="cosine")) is None
    assert beginning(wrapped("edm")) is beginning(wrapped("vp")) is None
    assert beginning(wrapped(alphas_cumprod="cosine", sigma_max=80)) is None
    assert beginning(wrapped("v", alphas_cumprod=[0.9, 0.1, 2.0**-40])) is None
    late = beginning(wrapped("v", betas=torch.linspace(1e-4, 1, 600)))
    assert "nothing of the data is left above" in late and len(late) < 160
    assert beginning(Range()) is beginning(abs) is None


@pytest.fixture
def cosine(tmp_path):
    torch.manual_seed(0)
    process = kdiff.precond("eps", alphas_cumprod="cosine")
    model = kdiff.Denoiser(SongUNet(**TINY), process, shape=(3, 8, 8))
    path = tmp_path / "cosine.safetensors"
    native.save(path, model.network.state_dict(), native.describe(model), torch.float32)
    return path


def test_inspect_says_where_schedules_begin(cosine):
    result = kdiff_cli("inspect", cosine)
    assert "0.006425 to 128.3" in result.stdout
    assert "begin at sigma 128.3, not at 20,291" in result.stdout
    record = json.loads(kdiff_cli("inspect", cosine, "--json", "--no-health").stdout)
    assert record["sigma_max"] == pytest.approx(128.33, abs=0.01)
    assert record["table_end"] == pytest.approx(20291.17, abs=0.01)
    told = kdiff_cli("inspect", cosine, "--no-health", "--set", "sigma_max=500").stdout
    assert "0.006425 to 500" in told and "begin at" not in told


def test_sample_says_where_schedules_begin(cosine, tmp_path):
    few = ("--model", cosine, "--num", 1, "--steps", 2, "--overwrite", "--out", tmp_path / "out")
    said = kdiff_cli("sample", *few)
    assert said.exit_code == 0 and "begin at sigma 128.3, not at 20,291" in said.stderr
    silent = kdiff_cli("sample", *few, "--sigma-max", 200)
    assert silent.exit_code == 0 and "begin at" not in silent.stderr
    leading = kdiff_cli("sample", *few, "--schedule", "leading")  # begins lower in any case
    assert leading.exit_code == 0 and "begin at" not in leading.stderr


def test_sweep_says_where_schedules_begin(cosine, tmp_path):
    arguments = ("sweep", "--model", cosine, "--sampler", "euler", "--steps", 2, "--num", 2)
    arguments += ("--first-seed", "0,2", "--metrics", "rmse", "--out", tmp_path / "sweep")
    said = kdiff_cli(*arguments, "--dry-run")
    assert said.exit_code == 0, said.stderr
    assert said.stderr.count("begin at sigma 128.3, not at 20,291") == 1
    assert "begin at" not in kdiff_cli(*arguments, "--dry-run", "--sigma-max", 80).stderr


def test_inspect_suggests_a_range_from_images(cosine, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    arguments = ("inspect", cosine, "--images", tmp_path / "images.npy", "--no-health")
    found = json.loads(kdiff_cli(*arguments, "--json").stdout)["suggested"]
    x = images.reshape(8, -1) / 127.5 - 1
    rho = math.sqrt(np.linalg.eigvalsh(x @ x.T / 8)[-1])
    assert found["sigma_max"] == pytest.approx(4 * rho) and found["images"] == 8
    text = kdiff_cli(*arguments).stdout
    assert f"to {4 * rho:.2g}, or {2 * rho:.2g} for 10 evaluations or fewer" in text


@pytest.fixture
def broken(cosine, tmp_path):
    model = kdiff.load(cosine)
    tensors = model.network.state_dict()
    for name, value in list(zip(list(tensors)[:5], (math.nan, math.inf) * 3, strict=False)):
        tensors[name].fill_(value)
    path = tmp_path / "broken.safetensors"
    native.save(path, tensors, native.describe(model), torch.float32)
    return path, list(tensors)[:5]


def test_weights_that_are_not_finite_are_named(broken, tmp_path):
    path, names = broken
    where = f"in 5 tensors: {', '.join(names[:3])}, .."
    for arguments in ((), ("--no-health",)):
        result = kdiff_cli("inspect", path, *arguments)
        assert result.exit_code == 0 and where in result.stdout
        assert "parameterisation, noise levels" not in result.stdout
        record = json.loads(kdiff_cli("inspect", path, "--json", *arguments).stdout)
        assert record["not_finite"] == names
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    result = kdiff_cli("inspect", path, "--json", "--images", tmp_path / "images.npy")
    assert json.loads(result.stdout)["health"]["status"] == "bad"


def test_convert_warns_of_weights_that_are_not_finite(broken, cosine, tmp_path):
    path, names = broken
    result = kdiff_cli("convert", path, tmp_path / "again.safetensors")
    assert result.exit_code == 0 and (tmp_path / "again.safetensors").exists()
    assert f"Warning: weights are not finite in 5 tensors: {names[0]}" in result.stderr
    assert "Warning" not in kdiff_cli("convert", cosine, tmp_path / "fine.safetensors").stderr
