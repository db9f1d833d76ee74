"""Writes tests/golden/k_diffusion_compat.json: k-diffusion's signatures, and what its functions
compute, in float32 and float64, with noise from torch's global generator. In the environment of
tools/make_k_diffusion_golden.py; tests/compat/test_k_diffusion.py holds kdiff.compat against it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
from pathlib import Path

import torch

from make_k_diffusion_golden import load_sampling

OUT = Path(__file__).parents[1] / "tests/golden/k_diffusion_compat.json"
torch.set_default_dtype(torch.float32)

CHURN = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.1}
CASES: dict[str, list[dict]] = {
    "sample_euler": [{}, CHURN],
    "sample_heun": [{}, CHURN],
    "sample_dpm_2": [{}, CHURN],
    "sample_euler_ancestral": [{}, {"eta": 0.5, "s_noise": 0.9}],
    "sample_dpm_2_ancestral": [{}, {"eta": 0.5, "s_noise": 0.9}],
    "sample_dpmpp_2s_ancestral": [{}, {"eta": 0.5, "s_noise": 0.9}],
    "sample_lms": [{}, {"order": 2}],
    "sample_dpmpp_2m": [{}],
    "sample_dpmpp_sde": [{}, {"eta": 0.5, "s_noise": 0.9, "r": 0.4}],
    "sample_dpmpp_2m_sde": [{}, {"eta": 0.5, "solver_type": "heun"}],
    "sample_dpmpp_3m_sde": [{}, {"eta": 0.5}],
}
ENDS = {"sigma_min": 0.03, "sigma_max": 14.6}
SCHEDULES: dict[str, list[dict]] = {
    "get_sigmas_karras": [ENDS, {**ENDS, "rho": 5.0}],
    "get_sigmas_exponential": [ENDS],
    "get_sigmas_polyexponential": [ENDS, {**ENDS, "rho": 2.0}],
    "get_sigmas_vp": [{}, {"beta_d": 15.0, "beta_min": 0.2, "eps_s": 1e-2}],
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def model(x, sigma, shift=0.0):
    """Some function of both."""
    return (x / (1 + sigma[:, None] ** 2)).tanh() + shift


def noise_sampler(x):
    """Stands for a Brownian path: depends on both ends of the interval."""
    index = torch.arange(1, x.numel() + 1, dtype=x.dtype).view_as(x)
    return lambda s, t: torch.sin(index + s.log() - t.log() / 2)


def start(dtype):
    return 14.6 * torch.arange(16, dtype=torch.float64).sin().reshape(2, 8).to(dtype)


def sample(sampling, name, options, dtype):
    torch.set_default_dtype(dtype)
    sigmas = sampling.get_sigmas_karras(6, **ENDS)
    torch.manual_seed(0)
    x, seen, calls = start(dtype), [], []

    def watched(x, sigma, **extra):
        calls.append(sigma.tolist())
        return model(x, sigma, **extra)

    def callback(info):
        numbers = [info[key].sum().item() for key in ("x", "denoised")]
        seen.append([info["i"], info["sigma"].item(), info["sigma_hat"].item(), *numbers])

    if name.endswith("sde"):
        options = {**options, "noise_sampler": noise_sampler(x)}
    run = getattr(sampling, name)
    result = run(watched, x, sigmas, {"shift": 0.1}, callback, True, **options).tolist()
    torch.set_default_dtype(torch.float32)
    next_draw = torch.randn(1).item()
    return {"result": result, "seen": seen, "calls": calls, "next_draw": next_draw}


def schedule(sampling, name, settings, dtype):
    torch.set_default_dtype(dtype)
    sigmas = getattr(sampling, name)(8, **settings).tolist()
    torch.set_default_dtype(torch.float32)
    return sigmas


class Network(torch.nn.Module):
    """Stands for every network that `external` wraps."""

    def __init__(self):
        super().__init__()
        betas = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def forward(self, x, t, shift=0.0):
        return torch.cat([(x + t[:, None] / 100).sin() + shift, x], 1)

    def apply_model(self, x, t, cond):
        return self(x, t, cond)[:, :8]


def wrappers(external, layers):
    network = Network()

    def half(x, t, **extra):
        return network(x, t, **extra)[:, :8]

    alphas = network.alphas_cumprod
    discrete = {
        "DiscreteEpsDDPMDenoiser": external.DiscreteEpsDDPMDenoiser(half, alphas, False),
        "DiscreteEpsDDPMDenoiser, quantized": external.DiscreteEpsDDPMDenoiser(half, alphas, True),
        "OpenAIDenoiser": external.OpenAIDenoiser(network, network),
        "DiscreteVDDPMDenoiser": external.DiscreteVDDPMDenoiser(half, alphas, False),
        "CompVisDenoiser": external.CompVisDenoiser(network),
        "CompVisVDenoiser": external.CompVisVDenoiser(network, quantize=True),
    }
    return {
        "VDenoiser": external.VDenoiser(half),
        "Denoiser": layers.Denoiser(half, sigma_data=0.5),
    }, discrete


def wrap(wrapper, name, is_discrete):
    x = start(torch.float64)
    sigma = torch.tensor([0.7, 0.033], dtype=torch.float64)
    extra = {"cond": 0.1} if name.startswith("CompVis") else {"shift": 0.1}
    golden = {"denoised": wrapper(x, sigma, **extra).tolist()}
    golden["loss"] = wrapper.loss(x, x.cos(), sigma, **extra).tolist()
    golden["scalings"] = [c.tolist() for c in wrapper.get_scalings(sigma)]
    if hasattr(wrapper, "sigma_to_t"):
        many = torch.tensor([1e-4, 0.01, 0.1, 0.5, 0.8, 3.0], dtype=torch.float64)
        golden["t"] = wrapper.sigma_to_t(many).tolist()
    if hasattr(wrapper, "t_to_sigma"):
        times = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64) * (40 if is_discrete else 1)
        golden["sigma"] = wrapper.t_to_sigma(times).tolist()
    if is_discrete:
        golden["sigmas"] = wrapper.get_sigmas(5).tolist()
        golden["all_sigmas"] = wrapper.get_sigmas().tolist()
        golden["state"] = sorted(wrapper.state_dict())
        golden["ends"] = [wrapper.sigma_min.item(), wrapper.sigma_max.item()]
    return golden


def signature(thing):
    """[name, default]: each parameter; `...` where the default is a function."""
    return [
        [p.name, "..." if inspect.isfunction(p.default) else repr(p.default)]
        for p in inspect.signature(thing).parameters.values()
    ]


def public(module):
    """The functions and classes that it defines."""
    return {
        name: signature(thing)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__
    }


def main() -> None:
    sampling = load_sampling()
    torch.set_default_dtype(torch.float32)
    package = sys.modules["k_diffusion"]
    package.sampling = sampling
    for stub in ("dctorch", "einops"):  # what layers.py imports for training
        sys.modules[stub] = types.ModuleType(stub)
    sys.modules["dctorch"].functional = None
    sys.modules["einops"].rearrange = sys.modules["einops"].repeat = None
    external, layers = (importlib.import_module(f"k_diffusion.{n}") for n in ("external", "layers"))
    continuous, discrete = wrappers(external, layers)
    step = sampling.get_ancestral_step
    golden = {
        "signatures": {"sampling": public(sampling), "external": public(external)},
        "samples": [
            {
                "name": name,
                "options": options,
                "dtype": key,
                **sample(sampling, name, options, dtype),
            }
            for name, variants in CASES.items()
            for options in variants
            for key, dtype in DTYPES.items()
        ],
        "schedules": [
            {
                "name": name,
                "settings": settings,
                "dtype": key,
                "sigmas": schedule(sampling, name, settings, dtype),
            }
            for name, variants in SCHEDULES.items()
            for settings in variants
            for key, dtype in DTYPES.items()
        ],
        "ancestral_steps": [
            [*case, *[float(s) for s in step(*case)]]
            for case in ((3.0, 1.0, 1.0), (3.0, 1.0, 0.3), (3.0, 2.9, 5.0), (3.0, 1.0, 0.0))
        ],
        "wrappers": {
            name: wrap(wrapper, name, group is discrete)
            for group in (continuous, discrete)
            for name, wrapper in group.items()
        },
    }
    text = json.dumps(golden)
    for key in ('{"name"', '"wrappers"', '"Discrete', '"CompVis'):
        text = text.replace(key, "\n" + key)
    OUT.write_text(text + "\n")
    print(f"{len(golden['samples'])} results in {OUT}")


if __name__ == "__main__":
    main()
