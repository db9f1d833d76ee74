"""Where schedules begin by default: an error of eps, which D multiplies by sigma, stays small."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import kdiff
from kdiff.checkpoints import native
from kdiff.networks import SongUNet
from kdiff.preconditioners import LARGEST_SIGMA
from kdiff.samplers.vp import vp_sigma
from places import ROOT

STD, DELTA = 0.5, 0.01
TINY = {"img_resolution": 8, "model_channels": 8, "num_blocks": 1, "channel_mult": [1, 2]}


def off_by_delta(prediction="eps", table="cosine", **settings):
    """The exact network of N(0, STD^2) in 16 dimensions, plus DELTA."""
    gaussian = kdiff.analytic.gaussian(torch.zeros(16, dtype=torch.float64), STD)
    process = kdiff.precond(prediction, alphas_cumprod=table)

    def network(x, t):
        sigma = math.exp(np.interp(float(t[0]), range(1000), np.log(process.sigmas)))
        c = process(sigma)
        x = x / c.c_in
        return (gaussian(x, sigma) - c.c_skip * x) / c.c_out + DELTA

    return kdiff.wrap(network, prediction, shape=(16,), alphas_cumprod=table, **settings)


def mean(model, sampler="euler", **planned):
    """The mean of samples, less the mean of the same samples by the exact denoiser."""
    x = kdiff.sample(model, sampler, n=64, dtype=torch.float64, **planned)
    plain = kdiff.sample(
        kdiff.analytic.gaussian(torch.zeros(16, dtype=torch.float64), STD),
        sampler,
        n=64,
        dtype=torch.float64,
        sigmas=kdiff.plan(model, sampler, **planned).sigmas,
    )
    return float((x - plain).mean())


@pytest.mark.parametrize("schedule", ["trailing", "linspace"])
def test_an_error_of_eps_does_not_ruin_the_samples(schedule):
    """A step from s to t leaves (s - t) DELTA, and what is at t shrinks on the way to 0 by
    STD / hypot(t, STD) at most."""
    model = off_by_delta()
    sigmas = kdiff.schedule(schedule, 20, model)
    left = sum((s - t) * STD / math.hypot(t, STD) for s, t in pairwise(sigmas)) * DELTA
    assert left < 0.1
    assert abs(mean(model, steps=20, schedule=schedule)) < left
    # In Euler's own steps, which the Gaussian makes linear, it is this to the last digit.
    expected = 0.0
    for s, t in pairwise(sigmas):
        denoised = STD**2 / (STD**2 + s**2) * expected - s * DELTA
        expected = t / s * expected + (1 - t / s) * denoised
    assert mean(model, steps=20, schedule=schedule) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "ipndm", "unipc", "ddim"])
@pytest.mark.parametrize("schedule", ["trailing", "linspace", "leading", "karras"])
def test_nor_with_other_samplers(sampler, schedule):
    limit = 0.25 if sampler == "heun" else 0.1  # its second stage looks back up the first step
    assert abs(mean(off_by_delta(), sampler, steps=20, schedule=schedule)) < limit


def test_an_explicit_sigma_max_goes_where_it_says():
    for model, chosen in ((off_by_delta(), {"sigma_max": 1e6}), (off_by_delta(sigma_max=1e6), {})):
        assert kdiff.schedule("trailing", 20, model, **chosen)[0] == pytest.approx(20291.17)
        assert mean(model, steps=20, schedule="trailing", **chosen) < -7
    assert kdiff.schedule("karras", 20, off_by_delta(), sigma_max=5000)[0] == 5000


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_bounded_networks_begin_at_the_end_of_their_table(prediction):
    model = off_by_delta(prediction)
    assert model.sigma_max == model.sigmas[-1] > 20_000
    for schedule in ("trailing", "karras"):
        assert abs(mean(model, steps=20, schedule=schedule)) < 0.1


@pytest.mark.parametrize(
    ("name", "settings", "last"),
    [
        ("eps", {"alphas_cumprod": "cosine"}, 994),
        ("eps", {"alphas_cumprod": "cosine", "steps": 4000}, 3982),
        ("eps", {"alphas_cumprod": "cosine", "steps": 20}, 18),
        ("iddpm", {}, 994),
        ("eps", {}, 999),
        ("eps", {"alphas_cumprod": "scaled_linear"}, 999),
        ("eps", {"alphas_cumprod": [0.9, 1e-9]}, 1),  # two are needed
        ("eps", {"alphas_cumprod": [1e-6, 1e-9]}, 1),
    ],
)
def test_the_range_is_the_part_of_the_table_that_is_of_use(name, settings, last):
    found = kdiff.precond(name, **settings)
    assert found.sigma_max == found.sigmas[last]
    above = found.sigmas[last + 1 :]
    assert len(found.sigmas) < 3 or (found.sigma_max <= LARGEST_SIGMA and min(above, default=161))
    assert all(s > LARGEST_SIGMA for s in above)


def test_continuous_preconditioners_keep_their_range():
    assert kdiff.precond("vp").sigma_max == float(vp_sigma(1.0))
    assert kdiff.precond("sub_vp").sigma_max == pytest.approx(152.16, abs=0.01)
    assert [kdiff.precond(n).sigma_max for n in ("edm", "ve", "flow", "denoised")] == [
        80,
        100,
        1000,
        80,
    ]


def test_sigmas_that_float32_cannot_hold_stand_for_infinity():
    betas = torch.linspace(1e-4, 1, 600)  # sigma goes to 1e127
    model = kdiff.wrap(lambda x, t: x, "v", shape=(4,), betas=betas)
    assert model.sigmas[-1] > 1e100
    for schedule in ("trailing", "linspace", "karras"):
        assert kdiff.sample(model, "euler", steps=10, schedule=schedule).isfinite().all()


def test_what_docs_noise_levels_prints(capsys):
    text = (ROOT / "docs" / "noise-levels.md").read_text(encoding="utf-8")
    code, after = text.split("```python\n")[1].split("```")
    exec(code, {})
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = [line.split() for line in after.splitlines() if line.startswith("    ")]
    assert [row[:2] for row in found] == [row[:2] for row in printed[1:]]
    for ours, theirs in zip(found, printed[1:], strict=True):
        values = [float(value) for value in theirs[2:]]
        assert [float(v) for v in ours[2:]] == pytest.approx(values, rel=2e-3, abs=2e-3)


# --- kdiff's own files ---


def restored(tmp_path, model, **stored):
    config = {**native.describe(model), **stored}
    native.save(tmp_path / "model.safetensors", model.network.state_dict(), config, torch.float32)
    return kdiff.load(tmp_path / "model.safetensors")


def cosine(**settings):
    process = kdiff.precond("eps", alphas_cumprod="cosine")
    return kdiff.Denoiser(SongUNet(**TINY), process, shape=(3, 8, 8), **settings)


@pytest.mark.parametrize("settings", [{}, {"sigma_max": 20291.169610019886}, {"sigma_min": 0.1}])
def test_a_saved_model_keeps_its_range(settings, tmp_path):
    model = cosine(**settings)
    again = restored(tmp_path, model)
    for name in ("trailing", "karras"):
        assert kdiff.schedule(name, 5, again) == kdiff.schedule(name, 5, model)


def test_a_saved_model_of_zero_snr_keeps_both_its_ends(tmp_path):
    process = kdiff.precond("v", alphas_cumprod=[0.9, 0.5, 1e-3, 2.0**-40])
    model = kdiff.Denoiser(SongUNet(**TINY), process, shape=(3, 8, 8))
    assert (model.sigma_max, model.sigma_end) == model.sigmas[-2:]
    again = restored(tmp_path, model, sigma_min=model.sigma_min, sigma_max=model.sigma_max)
    for name in ("trailing", "karras"):
        assert kdiff.schedule(name, 3, again) == kdiff.schedule(name, 3, model)


def test_the_end_of_the_table_in_an_earlier_file_was_nobody_s_choice(tmp_path):
    model = cosine()
    table = model.sigmas
    again = restored(tmp_path, model, sigma_min=table[0], sigma_max=table[-1])
    assert again.sigma_max == model.sigma_max
    again = restored(tmp_path, model, sigma_min=table[0], sigma_max=80.0)
    assert again.sigma_max == 80
