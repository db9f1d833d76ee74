"""Adaptive samplers against k-diffusion's interface and scipy's solvers, run side by side,
and against values that tools/make_zoo_k_diffusion_golden.py made with k-diffusion."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import kdiff
import places
from diffusers_parity import MODEL, START
from kdiff.analytic import GaussianMixture
from kdiff.compat import k_diffusion

RANGE = [20.0, 0.02]
X = RANGE[0] * START[:1]  # k-diffusion decides for the whole batch, kdiff for each sample


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


GOLDEN = json.loads((places.GOLDEN / "zoo_k_diffusion.json").read_text())
STORED_MODEL = GaussianMixture(**{key: f64(value) for key, value in GOLDEN["model"].items()})


def ours(name, **options):
    plan = kdiff.plan(sampler=name, sigmas=RANGE, options=options)
    noise = kdiff.Noise([7], X.shape[1:], X.dtype)
    *states, last = kdiff.drive(MODEL, plan, X, noise)
    return states, last


@pytest.fixture
def in_float64():
    """k-diffusion's time t is of the default dtype."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(usual)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 2},
        {"rtol": 1e-3, "atol": 1e-4},
        {"order": 2, "rtol": 1e-3, "atol": 1e-4},
        {"pcoeff": 0.4, "icoeff": 0.7, "dcoeff": 0.05},
        {"h_init": 1.0, "accept_safety": 0.9},
        {"eta": 0.5},
        {"eta": 1.0, "s_noise": 0.9},
    ],
    ids=str,
)
def test_dpm_adaptive_against_k_diffusion(options, in_float64):
    """Which evaluates again where it was before a step that it did not accept."""
    noise = kdiff.Noise([7], X.shape[1:], X.dtype)
    theirs, info = k_diffusion.sampling.sample_dpm_adaptive(
        lambda x, sigma: MODEL(x, float(sigma[0])),
        X,
        *reversed(RANGE),
        noise_sampler=lambda s, t: noise.brownian(float(s), float(t)),
        return_info=True,
        disable=True,
        **options,
    )
    _, last = ours("dpm_adaptive", **options)
    assert last.asks == info["nfe"] - info["n_reject"]
    torch.testing.assert_close(last.x, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variable", ["sigma", "log_sigma"])
@pytest.mark.parametrize(
    ("pair", "method"),
    [("dormand_prince", "RK45"), ("bogacki_shampine", "RK23"), ("dop853", "DOP853")],
)
def test_rk_adaptive_is_solve_ivp(pair, method, variable):
    logs = variable == "log_sigma"

    def slope(u, y):
        x, sigma = torch.from_numpy(y)[None], math.exp(u) if logs else u
        return ((x - MODEL(x, sigma)) / (1 if logs else sigma))[0].numpy()

    ends = [math.log(sigma) if logs else sigma for sigma in RANGE]
    theirs = solve_ivp(slope, ends, X[0].numpy(), method=method, rtol=1e-5, atol=1e-5)
    states, last = ours("rk_adaptive", pair=pair, variable=variable)
    assert last.asks == theirs.nfev
    np.testing.assert_allclose(last.x[0].numpy(), theirs.y[:, -1], rtol=0, atol=1e-10)
    asked = np.array([state.sigma for state in states])
    for u in theirs.t[1:-1]:  # the steps that were accepted
        assert np.isclose(asked, math.exp(u) if logs else u, rtol=1e-5, atol=0).any()


def as_one_sample(x, sigma):
    """k-diffusion decides for the whole batch: here a batch of one, with its samples as rows."""
    return STORED_MODEL(x[0], sigma)[None]


def stored_noise(s, t, draw=0, *, stream=""):
    """As in tools/golden_problem.py."""
    index = torch.arange(1.0, 7.0, dtype=torch.float64)
    return torch.sin(index * (1 + math.log(s)) + math.log(t) / index + 0.7 * draw).view(1, 2, 3)


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(sample, id=str(sample["options"]))
        for sample in GOLDEN["samples"]
        if sample["name"] == "dpm_adaptive"
    ],
)
def test_dpm_adaptive_against_stored_values_of_k_diffusion(sample):
    plan = kdiff.plan(sampler="dpm_adaptive", sigmas=RANGE, options=sample["options"])
    noise = SimpleNamespace(white=stored_noise, brownian=stored_noise)
    x = RANGE[0] * f64(GOLDEN["start"])[None]
    *_, last = kdiff.drive(as_one_sample, plan, x, noise)
    info = sample["info"]
    assert last.asks == info["nfe"] - info["n_reject"]
    torch.testing.assert_close(last.x[0], f64(sample["result"]), rtol=0, atol=1e-10)
