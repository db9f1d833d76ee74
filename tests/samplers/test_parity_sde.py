"""Stochastic samplers against ComfyUI, Restart's code and score_sde, through values that
tools/make_zoo_*_golden.py made with them in float64; and against diffusers, live."""

import json
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch

import places
from diffusers_parity import draws
from kdiff.analytic import GaussianMixture
from kdiff.samplers import REGISTRY, Walk

PEERS = ("comfyui", "restart", "score_sde")
GOLDEN = {peer: json.loads((places.GOLDEN / f"zoo_{peer}.json").read_text()) for peer in PEERS}
tensor = partial(torch.tensor, dtype=torch.float64)
MODEL = GaussianMixture(**{k: tensor(v) for k, v in GOLDEN["comfyui"]["model"].items()})
START = tensor(GOLDEN["comfyui"]["start"])
ONE = START[:1]
EXACT = 1e-11  # the goldens have 13 digits


def pseudo_noise(s: float, t: float, draw: int = 0, *, stream: str = "") -> torch.Tensor:
    """The stand-in for noise that the golden values were made with."""
    log_s, log_t = tensor([s, t]).log()
    index = torch.arange(1, START.numel() + 1, dtype=torch.float64)
    return torch.sin(index * (1 + log_s) + log_t / index + 0.7 * draw).view_as(START)


def flow_noise(s: float, t: float) -> torch.Tensor:
    """The same in runs of flow models, whose noise levels are tau = sigma / (1 + sigma)."""
    return pseudo_noise(s / (1 + s), t / (1 + t))


def drive(name: str, options: dict, sigmas, noise=pseudo_noise) -> torch.Tensor:
    noise = flow_noise if options.pop("flow", False) else noise
    walk = Walk(REGISTRY[name].start(sigmas[0] * START, sigmas, noise, options))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    return walk.result


def distance(result: torch.Tensor, expected) -> float:
    """The largest difference, relative to the largest component."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return float((result - expected).abs().max() / expected.abs().max())


def grid(sample: dict, peer: str) -> list[float]:
    golden = GOLDEN[peer]
    return {**golden["grids"], **golden.get("more_grids", {})}[sample["grid"]]


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


@pytest.mark.parametrize("sample", cases("comfyui", "er_sde"))
def test_er_sde(sample):
    options = {"as_published": True, **sample["options"]}
    options["order"] = options.pop("max_stage", 3)
    found = drive("er_sde", options, grid(sample, "comfyui"))
    assert distance(found, sample["result"]) < 1e-7  # its sums are of float32


@pytest.mark.parametrize("sample", cases("comfyui", "seeds_2", "seeds_3"))
def test_seeds(sample):
    found = drive(sample["name"], dict(sample["options"]), grid(sample, "comfyui"))
    assert distance(found, sample["result"]) < EXACT


FLOW = cases("comfyui", "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral")


@pytest.mark.parametrize("sample", FLOW)
def test_ancestral_samplers_of_flow_models(sample):
    found = drive(f"{sample['name']}_flow", dict(sample["options"]), grid(sample, "comfyui"))
    assert distance(found, sample["result"]) < EXACT


# --- Restart ---


@pytest.mark.parametrize("sample", cases("restart", "restart"))
def test_restart(sample):
    options = dict(sample["options"])
    options["restarts"] = json.dumps(options.pop("restart"))
    found = drive("restart", options, grid(sample, "restart"))
    assert distance(found, sample["result"]) < 1e-6  # its levels are of float32


# --- score_sde ---

PC = cases("score_sde", "pc")
ANCESTRAL = {"ancestral_sampling": "ancestral"}


def pc(**wanted) -> list:
    """Its cases with these options."""
    return [case for case in PC if wanted.items() <= case.values[0]["options"].items()]


# Their Euler-Maruyama takes steps of 1 / N over times that are 1 / (N - 1) apart.
PLAIN = [c for c in PC if c.values[0]["options"].keys() == {"predictor"}]
PLAIN = [c for c in PLAIN if c.values[0]["options"]["predictor"] != "euler_maruyama"]


@pytest.mark.parametrize("sample", PLAIN)
def test_predictors(sample):
    predictor = sample["options"]["predictor"]
    ours = {"corrector_steps": 0, "predictor": ANCESTRAL.get(predictor, predictor)}
    found = drive("predictor_corrector", ours, grid(sample, "score_sde"))
    assert distance(found, sample["result"]) < 1e-6  # its noise levels are of float32


@pytest.mark.parametrize("sample", pc(predictor="reverse_diffusion", corrector="langevin", batch=1))
def test_predictor_corrector(sample):
    """Each sample alone: their step size is a mean over the batch."""
    options = sample["options"]
    ours = {"corrector_steps": options["n_steps"], "snr": options["snr"]}
    found = drive("predictor_corrector", ours, grid(sample, "score_sde"))
    assert distance(found, sample["result"]) < 1e-6


@pytest.mark.parametrize("sample", pc(predictor="none", corrector="ald"))
def test_annealed_langevin(sample):
    """`ald`: steps of 2 (snr sigma)^2. Without a predictor they return x as the last one left it,
    and the noises that predictors would take go to the next Langevin steps."""
    options, sigmas = sample["options"], grid(sample, "score_sde")
    ours = {"per_level": options["n_steps"], "step_size": 4 * options["snr"] ** 2}
    queue = iter(
        pseudo_noise(s, *end)
        for s, t in pairwise(sigmas)
        for end in [*((s, k) for k in range(options["n_steps"])), (max(t, 1e-3), 0)]
    )
    found = drive("annealed_langevin", ours, sigmas[:-1], lambda *interval: next(queue))
    assert distance(found, sample["result"]) < 1e-6


# --- diffusers ---


def score(x: torch.Tensor, s: float) -> torch.Tensor:
    return (MODEL(x, s) - x) / s**2


def from_one(name: str, sigmas: list[float], **options) -> torch.Tensor:
    """kdiff's, from one sample: their norms are means over the batch."""
    noise = draws()
    sampler = REGISTRY[name]
    walk = Walk(sampler.start(sigmas[0] * ONE, sigmas, lambda *_: next(noise)[:1], options))
    while walk.ask is not None:
        walk.answer(MODEL(walk.ask.x, walk.ask.sigma))
    return walk.result


@pytest.mark.parametrize("correct_steps", [0, 1, 3])
def test_score_sde_ve(correct_steps, make, monkeypatch):
    """The pipeline's loop, which ends with the mean of the last step. Their sigmas are float32."""
    scheduler = make("ScoreSdeVeScheduler", 8, wide=False, sigma_min=0.05, sigma_max=20.0)
    scheduler.set_sigmas(8)
    sigmas, noise = scheduler.discrete_sigmas.tolist()[::-1], draws()
    module = sys.modules[type(scheduler).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(noise)[:1])
    x = sigmas[0] * ONE
    for t, s in zip(scheduler.timesteps, sigmas, strict=True):
        for _ in range(correct_steps):
            x = scheduler.step_correct(score(x, s), x).prev_sample
        output = scheduler.step_pred(score(x, s), t, x)
        x = output.prev_sample
    options = {"corrector_steps": correct_steps, "snr": scheduler.config.snr}
    ours = from_one("predictor_corrector", [*sigmas, 0.0], **options)
    assert distance(ours, output.prev_sample_mean) < 1e-5


def test_karras_ve(make, monkeypatch):
    """Heun's method with churn; their own schedule has sigma^2 where sigma belongs."""
    scheduler, sigmas = make("KarrasVeScheduler", 6, wide=False), [60.0, 14, 4, 0.9, 0.2, 0.03, 0.0]
    module, noise = sys.modules[type(scheduler).__module__], draws()
    # They draw also where no noise is added; so do not count those.
    monkeypatch.setattr(
        module,
        "randn_tensor",
        lambda *_, **__: next(noise)[:1] if 0.05 <= s <= 50 else torch.zeros(1, 3).double(),
    )
    x = sigmas[0] * ONE
    for s, t in pairwise(sigmas):
        hat, s_hat = scheduler.add_noise_to_input(x, s)
        output = scheduler.step(s_hat * score(hat, s_hat), s_hat, t, hat)
        x = output.prev_sample
        if t > 0:
            slope = t * score(x, t)
            x = scheduler.step_correct(slope, s_hat, t, hat, x, output.derivative).prev_sample
    options = {"S_churn": 80, "S_tmin": 0.05, "S_tmax": 50, "S_noise": 1.007}
    assert distance(from_one("heun", sigmas, **options), x) < 1e-12
