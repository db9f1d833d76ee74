"""Multistep samplers against ComfyUI, diff-sampler and azula, through values that
tools/make_zoo_*_golden.py made with them in float64. docs/parity.md says what differs."""

import json
from functools import partial

import pytest
import torch

import places
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY, Walk

PEERS = ("comfyui", "diff_sampler", "azula")
if not all((places.GOLDEN / f"zoo_{peer}.json").exists() for peer in PEERS):
    pytest.skip("the goldens of peers are not here", allow_module_level=True)
GOLDEN = {peer: json.loads((places.GOLDEN / f"zoo_{peer}.json").read_text()) for peer in PEERS}
tensor = partial(torch.tensor, dtype=torch.float64)
MODEL = GaussianMixture(**{k: tensor(v) for k, v in GOLDEN["comfyui"]["model"].items()})
START = tensor(GOLDEN["comfyui"]["start"])
EXACT = 1e-11  # the goldens have 13 digits
HIGH, LOW = GOLDEN["comfyui"]["tau_interval"]


def pseudo_noise(s: float, t: float, draw: int = 0, *, stream: str = "") -> torch.Tensor:
    """The stand-in for noise that the golden values were made with."""
    log_s, log_t = tensor([s, t]).log()
    index = torch.arange(1, START.numel() + 1, dtype=torch.float64)
    return torch.sin(index * (1 + log_s) + log_t / index + 0.7 * draw).view_as(START)


def distance(sample: dict, peer: str, name: str, options: dict) -> float:
    """The largest difference, relative to the largest component."""
    sigmas = GOLDEN[peer]["grids"][sample["grid"]]
    walk = Walk(REGISTRY[name].start(sigmas[0] * START, sigmas, pseudo_noise, options))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    expected = tensor(sample["result"])
    return float((walk.result - expected).abs().max() / expected.abs().max())


def cases(peer: str, *names: str) -> list:
    """Its results, but those that crashed."""
    return [
        pytest.param(
            sample,
            id="-".join([sample["name"], *map(str, sample["options"].items()), sample["grid"]]),
        )
        for sample in GOLDEN[peer]["samples"]
        if sample["name"] in names and sample["result"] is not None
    ]


# --- ComfyUI ---


@pytest.mark.parametrize("sample", cases("comfyui", "sa_solver", "sa_solver_pece"))
def test_sa_solver(sample):
    """Without another tau, 1 in the middle of the table; it lowers the order in runs to zero."""
    everywhere = "tau" in sample["options"]
    options = {
        "tau_min": 0 if everywhere else LOW,
        "tau_max": 100 if everywhere else HIGH,
        "lower_order_final": "zero" in sample["grid"],
    }
    assert distance(sample, "comfyui", sample["name"], options | sample["options"]) < EXACT


@pytest.mark.parametrize("sample", cases("comfyui", "res_multistep", "res_multistep_ancestral"))
def test_res_multistep(sample):
    """With eta between 0 and 1 it goes to sigma_down by the ODE, and measures how far apart its two
    predictions are from there; `dpmpp_2m_sde` solves the SDE of that eta."""
    options = {"solver_type": "heun"} | sample["options"]
    name = "dpmpp_2m_sde" if "ancestral" in sample["name"] else "dpmpp_2m"
    differs = distance(sample, "comfyui", name, options)
    assert differs > 0.1 if options.get("eta") == 0.5 else differs < EXACT


@pytest.mark.parametrize("sample", cases("comfyui", "gradient_estimation"))
def test_gradient_estimation(sample):
    options = {"gamma": sample["options"].get("ge_gamma", 2.0)}
    assert distance(sample, "comfyui", "gradient_estimation", options) < EXACT


@pytest.mark.parametrize("sample", cases("comfyui", "uni_pc"))
def test_uni_pc_of_comfyui(sample):
    """It takes a last sigma of 0 for 0.001."""
    options = {"order": 3, "lower_order_final": True} | sample["options"]
    differs = distance(sample, "comfyui", "unipc", options)
    assert differs > 1e-3 if "zero" in sample["grid"] else differs < EXACT


# --- ComfyUI and diff-sampler ---

PAIR = ("comfyui", "diff_sampler")


@pytest.mark.parametrize(
    ("peer", "sample"),
    [
        pytest.param(peer, *case.values, id=f"{peer}-{case.id}")
        for peer in PAIR
        for case in cases(peer, "ipndm_v", "ipndm")
        if "afs" not in case.values[0]["options"]
    ],
)
def test_ipndm(peer, sample):
    """Both return D at the end; `ipndm` goes on to zero as it went before."""
    options = {"order": sample["options"]["max_order"]}
    if sample["name"] == "ipndm_v":
        assert distance(sample, peer, "ipndm_v", options | {"as_published": True}) < EXACT
        differs = distance(sample, peer, "ipndm_v", options)
        assert differs < EXACT if options["order"] == 2 else differs > 1e-3
    else:
        differs = distance(sample, peer, "ipndm", options)
        assert differs > 1e-5 if "zero" in sample["grid"] else differs < EXACT


@pytest.mark.parametrize(
    ("peer", "sample"),
    [
        pytest.param(peer, *case.values, id=f"{peer}-{case.id}")
        for peer in PAIR
        for case in cases(peer, "deis")
    ],
)
def test_deis_tab(peer, sample):
    """Their integrals are sums over 10,000 points, which leaves them off by 1e-4 or so."""
    options = {"order": sample["options"]["max_order"], "variable": "t"}
    assert 1e-5 < distance(sample, peer, "deis", options) < 6e-4


def comparable(sample: dict) -> bool:
    """Thresholding is a guidance here, and UniPC is on x0."""
    on_eps = not sample["options"].get("predict_x0", True)
    return not ("thresholding" in sample["options"] or (sample["name"] == "unipc" and on_eps))


@pytest.mark.parametrize(
    "sample", [c for c in cases("diff_sampler", "dpm_pp", "unipc") if comparable(c.values[0])]
)
def test_diff_sampler(sample):
    """In runs to zero it lowers the order for the step before the last one too. On x0, its third
    order warms up by the midpoint rule."""
    theirs = sample["options"]
    order, lower = theirs["max_order"], theirs.get("lower_order_final", True)
    on_x0, zero = theirs.get("predict_x0", True), "zero" in sample["grid"]
    options = {"lower_order_final": lower}
    if sample["name"] == "unipc":
        name, options["order"], options["variant"] = "unipc", order, theirs.get("variant", "bh2")
    elif not on_x0:
        name, options["order"], options["as_published"] = "dpm_solver_multistep", order, True
    elif order < 3:
        name = ("unipc", "dpmpp_2m")[order - 1]
        options |= {"order": 1, "corrector": False} if order == 1 else {}
    else:
        name, options["as_published"] = "dpmpp_3m", True
    differs = distance(sample, "diff_sampler", name, options)
    agree = order == 1 or not (zero and lower)
    assert differs < EXACT if agree and name != "dpmpp_3m" else differs > 1e-5


# --- azula ---

AZULA = {
    "zABSampler": ("lms", {}),
    "vABSampler": ("velocity_adams", {}),
    "zEABSampler": ("deis", {}),
    "xEABSampler": ("dpmpp_km", {}),
    "REABSampler": ("reab", {"as_published": True}),
}


@pytest.mark.parametrize("sample", cases("azula", *AZULA))
def test_azula(sample):
    """REAB to 1e-6: azula integrates by the trapezoidal rule on 256 intervals."""
    name, options = AZULA[sample["name"]]
    differs = distance(sample, "azula", name, options | sample["options"])
    assert differs < (1e-6 if name == "reab" else EXACT)
    if name == "reab":
        assert distance(sample, "azula", name, sample["options"]) > 1e-2
