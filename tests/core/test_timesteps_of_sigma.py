"""The clock of discrete models: which timestep has which sigma; right and wrong alphas_cumprod."""

import math

import numpy as np
import pytest
import torch

import kdiff
from kdiff.betas import sigmas_of


def test_a_timestep_has_its_table_s_sigma():
    precond = kdiff.precond("eps")
    table = np.array(precond.sigmas)
    assert len(table) == 1000
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(table, np.sqrt((1 - a) / a), rtol=1e-12)
    for t in (0, 1, 499, 998, 999):
        assert precond(table[t]).c_noise == t
    assert (precond.sigma_min, precond.sigma_max) == (table[0], table[-1])


def test_between_timesteps_log_sigma_is_linear():
    precond = kdiff.precond("v", alphas_cumprod="scaled_linear")
    table = precond.sigmas
    for t, part in ((0, 0.25), (500, 0.5), (998, 0.9)):
        sigma = table[t] ** (1 - part) * table[t + 1] ** part
        assert precond(sigma).c_noise == pytest.approx(t + part, abs=1e-9)


@pytest.mark.parametrize("round", [False, True])
def test_the_clock_stops_at_both_ends(round):
    precond = kdiff.precond("eps", round=round)
    assert [precond(s).c_noise for s in (1e-30, 1e-9, 1e4)] == [0, 0, 999]


def test_round_takes_the_nearest_sigma():
    precond = kdiff.precond("eps", alphas_cumprod=[0.9, 0.5, 0.1], round=True)  # sigmas 1/3, 1, 3
    cases = {0.1: 0, 0.66: 0, 0.67: 1, 1.0: 1, 1.99: 1, 2.01: 2, 9: 2}
    assert {s: precond(s).c_noise for s in cases} == cases


def test_iddpm_is_the_cosine_schedule():
    """This holds in its last step too, whose alphas_cumprod is 2e-9 but not zero."""
    cosine = kdiff.precond("eps", alphas_cumprod="cosine").sigmas
    np.testing.assert_allclose(kdiff.precond("iddpm").sigmas, cosine, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("linear", {"beta_schedule": "linear"}),
        ("scaled_linear", {"beta_schedule": "scaled_linear", "beta_start": 0.00085}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_alphas_cumprod_against_diffusers(kind, theirs):
    """diffusers multiplies in float32: cos near pi / 2, and 1 - beta near 0.001, lose most."""
    diffusers = pytest.importorskip("diffusers")
    if kind == "scaled_linear":
        theirs["beta_end"] = 0.012
    expected = diffusers.DDPMScheduler(**theirs).alphas_cumprod.double()
    tolerance = 1e-3 if kind == "cosine" else 1e-4
    np.testing.assert_allclose(kdiff.alphas_cumprod(kind), expected, rtol=tolerance)


def test_a_zero_terminal_snr_is_finite():
    scheduling_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    a = (1 - scheduling_ddim.rescale_zero_terminal_snr(betas)).cumprod(0)
    assert a[-1] == 0
    precond = kdiff.precond("v", alphas_cumprod=a.tolist())
    assert np.isfinite(precond.sigmas).all()
    assert precond.sigmas[:-1] == pytest.approx(
        (((1 - a) / a) ** 0.5)[:-1].double().tolist(), rel=1e-3
    )
    assert precond.sigma_max == pytest.approx(4096, rel=1e-6)
    assert np.isfinite(precond(precond.sigma_max)).all()


def zero_at_the_end(name):
    linear = torch.linspace(0.005, 1.0, 20, dtype=torch.float64)
    return {
        "linear": lambda: (1 - linear).cumprod(0).tolist(),
        "float32": lambda: (1 - linear.float()).cumprod(0).tolist(),
        "rounded past 1": lambda: (1 - linear * (1 + 1e-9)).cumprod(0).tolist(),
        "cosine": lambda: kdiff.alphas_cumprod("cosine", 8000, max_beta=1.0),
        "denormal before": lambda: [0.9, 1e-299, 0.0],
        "early": lambda: [0.9, 0.0],
    }[name]()


@pytest.mark.parametrize(
    "name", ["linear", "float32", "rounded past 1", "cosine", "denormal before", "early"]
)
def test_a_zero_terminal_snr_after_any_alpha(name):
    alphas = zero_at_the_end(name)
    sigmas = sigmas_of(alphas)
    assert np.isfinite(sigmas).all() and (np.diff(sigmas) > 0).all()
    a = np.array(alphas[:-1])
    assert sigmas[:-1] == pytest.approx(np.sqrt((1 - a) / a).tolist(), rel=1e-12)
    assert sigmas[-1] == pytest.approx(4096 if sigmas[-2] < 4096 else 2 * sigmas[-2], rel=1e-6)


def test_betas_that_end_at_1():
    model = kdiff.wrap(lambda x, t: x, "v", shape=(2,), betas=torch.linspace(0.005, 1.0, 20))
    assert kdiff.schedule("trailing", 4, model)[0] == pytest.approx(model.sigmas[-1])


@pytest.mark.parametrize(
    ("alphas", "where"),
    [([0.9, 1e-310, 1e-320], "at timestep 1 of 3"), ([0.9, 0.0, 0.0], "at timestep 1 of 3")],
)
def test_alphas_cumprod_of_which_nothing_is_left(alphas, where):
    with pytest.raises(ValueError, match=f"must end where nothing is left of the data: {where}"):
        sigmas_of(alphas)


@pytest.mark.parametrize(
    "alphas",
    [
        [0.5, 0.9],
        [0.9, 0.9, 0.5],
        [1.0, 0.5],
        [0.9],
        [],
        [0.9, -0.1],
        [0.9, math.nan],
        [[0.9, 0.5]],
    ],
)
def test_wrong_alphas_cumprod(alphas):
    with pytest.raises(ValueError, match="alphas_cumprod must be a list that decreases strictly"):
        kdiff.precond("eps", alphas_cumprod=alphas)
