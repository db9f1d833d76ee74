"""The Runge-Kutta and single-step samplers against ComfyUI, k-diffusion, diff-sampler and skrample
(stored results), and diffusers (live)."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

import kdiff
import places
from diffusers_parity import TOLERANCE, diffusers_sample, distance, grid, kdiff_sample
from kdiff.analytic import GaussianMixture
from kdiff.samplers.butcher import TABLEAUX

STORED = 1e-11  # they have 13 digits; up to 5e-13 measured


def golden(peer):
    return json.loads((places.GOLDEN / f"zoo_{peer}.json").read_text())


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def pseudo_noise(s, t, draw=0, *, stream=""):
    """As in tools/golden_problem.py."""
    index = torch.arange(1.0, 7.0, dtype=torch.float64)
    return torch.sin(index * (1 + math.log(s)) + math.log(t) / index + 0.7 * draw).view(2, 3)


def ours(peer, sampler, sigmas, options):
    model = GaussianMixture(*(f64(peer["model"][key]) for key in ("means", "stds", "weights")))
    plan = kdiff.plan(sampler=sampler, sigmas=sigmas, options=options)
    noise = SimpleNamespace(white=pseudo_noise, brownian=pseudo_noise)
    *_, last = kdiff.drive(model, plan, sigmas[0] * f64(peer["start"]), noise)
    return last.x


def samples(peer, names):
    return [
        pytest.param(sample, id=f"{sample['name']}-{sample['options']}-{sample['grid']}")
        for sample in golden(peer)["samples"]
        if sample["name"] in names and sample["result"] is not None
    ]


@pytest.mark.parametrize("sample", samples("comfyui", ("heunpp2",)))
def test_heunpp2_of_comfyui_is_ours_as_published(sample):
    peer = golden("comfyui")
    found = ours(peer, "heunpp2", peer["grids"][sample["grid"]], {"as_published": True})
    assert distance(found, f64(sample["result"])) < STORED


@pytest.mark.parametrize("sample", samples("comfyui", ("exp_heun_2_x0", "exp_heun_2_x0_sde")))
def test_exponential_heun_of_comfyui(sample):
    peer = golden("comfyui")
    found = ours(peer, sample["name"], peer["grids"][sample["grid"]], sample["options"])
    assert distance(found, f64(sample["result"])) < STORED


@pytest.mark.parametrize("sample", samples("k_diffusion", ("dpm_fast",)))
def test_dpm_fast_of_k_diffusion(sample):
    """Its blocks are even in log sigma, whatever their order."""
    peer, n = golden("k_diffusion"), sample["grid"]
    orders = [3] * (n // 3) + [n % 3] if n % 3 else [3] * (n // 3 - 1) + [2, 1]
    parts = [(i + j / k) / len(orders) for i, k in enumerate(orders) for j in range(k)]
    found = ours(peer, "dpm_fast", [20 * 1e-3**u for u in [*parts, 1]], sample["options"])
    assert distance(found, f64(sample["result"])) < STORED


@pytest.mark.parametrize("sample", samples("diff_sampler", ("dpm_2",)))
def test_dpm_2_of_diff_sampler(sample):
    peer = golden("diff_sampler")
    options = {"alpha": sample["options"].get("r", 0.5), "variable": "log_sigma"}
    found = ours(peer, "rk2", peer["grids"][sample["grid"]], options)
    assert distance(found, f64(sample["result"])) < STORED


SKRAMPLE = {
    "RK RK2.Mid": "midpoint",
    "RK RK2.Ralston": "ralston2",
    "RK RKE2.Heun": "heun2",
    "RK RK3.Heun": "heun3",
    "RK RK3.Kutta": "kutta3",
    "RK RK3.Ralston": "ralston3",
    "RK RKE3.BogackiShampine": "bogacki_shampine3",
    "RK SSP.RK3_3": "ssprk3",
    "RK RK4.Kutta": "rk4",
    "RK RK4.Eighth": "three_eighths",
    "RK RK4.Ralston": "ralston4",
    "RK RKE5.Fehlberg": "fehlberg5",
    "RK RKE5.CashKarp": "cash_karp5",
    "RK RKE5.DormandPrince": "dormand_prince5",
}


@pytest.mark.parametrize("sample", samples("skrample", SKRAMPLE))
def test_runge_kutta_of_skrample(sample):
    """On eps it is ours in sigma. On x0 it steps x / sigma in 1 / sigma, but has its stages where
    c is a part of the step in sigma: ours, written out with such stages."""
    peer, name = golden("skrample"), SKRAMPLE[sample["name"]]
    sigmas, expected = peer["grids"][sample["grid"]], f64(sample["result"])
    if sample["options"]["space"] == "eps":
        found = ours(peer, "runge_kutta", sigmas, {"tableau": name, "variable": "sigma"})
    else:
        found = misplaced_stages(peer, sigmas, TABLEAUX[name])
        right = ours(peer, "runge_kutta", sigmas, {"tableau": name, "variable": "inverse_sigma"})
        same = set(TABLEAUX[name].c) <= {0, 1}
        assert (distance(right, expected) < STORED) == same
    assert distance(found, expected) < STORED


def misplaced_stages(peer, sigmas, tableau):
    model = GaussianMixture(*(f64(peer["model"][key]) for key in ("means", "stds", "weights")))
    x = sigmas[0] * f64(peer["start"])
    for s, t in pairwise(sigmas):
        answers = []
        for row, c in zip(tableau.a[: tableau.stages], tableau.c, strict=False):
            sigma = s + c * (t - s)
            mean = sum(w * d for w, d in zip(row, answers, strict=True)) / (sum(row) or 1)
            z = x / s + (1 / sigma - 1 / s) * mean
            answers.append(model(sigma * z, sigma))
        sums = sum(w * d for w, d in zip(tableau.b, answers, strict=False))
        x = t * (x / s + (1 / t - 1 / s) * sums)
    return x


# --- diffusers ---


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("steps", [10, 11, 12])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("kind", "solver_type"), [("midpoint", "phi_1"), ("heun", "phi_2")])
@pytest.mark.parametrize("spacing", [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}])
def test_singlestep_of_diffusers(make, spacing, kind, solver_type, order, steps):
    config = {"solver_order": order, "solver_type": kind, "final_sigmas_type": "zero", **spacing}
    scheduler = make("DPMSolverSinglestepScheduler", steps, lower_order_final=True, **config)
    options = {"order": order, "solver_type": solver_type, "lower_order_final": True}
    found = kdiff_sample("dpmpp_singlestep", grid(scheduler), **options, as_published=True)
    assert distance(found, diffusers_sample(scheduler, grid(scheduler))) < TOLERANCE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("order", [1, 2, 3])
def test_singlestep_sde_of_diffusers(make, order):
    """solver_type=heun differs at order 3: it subtracts 1/2 where phi_3 adds it."""
    config = {"solver_order": order, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    config |= {"final_sigmas_type": "zero", "solver_type": "midpoint", "lower_order_final": True}
    scheduler = make("DPMSolverSinglestepScheduler", 10, **config)
    options = {"order": order, "lower_order_final": True, "as_published": True, "eta": 1.0}
    found = kdiff_sample("dpmpp_singlestep", grid(scheduler), **options)
    assert distance(found, diffusers_sample(scheduler, grid(scheduler))) < TOLERANCE
