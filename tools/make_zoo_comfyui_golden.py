"""Writes tests/golden/zoo_comfyui.json: what ComfyUI's samplers and schedulers compute on the
problem of tools/golden_problem.py.

ComfyUI is GPL: this imports a checkout, and nothing of it is copied. The rest of ComfyUI, which
loads models, is replaced by empty modules. In a throw-away environment:

    git clone https://github.com/Comfy-Org/ComfyUI
    pip install torch scipy tqdm torchsde typing_extensions
    python tools/make_zoo_comfyui_golden.py ComfyUI

Made with commit 3cd7b32 (2026-01-07), torch 2.14 and scipy 1.17.

Noise: `noise_sampler(s, t)` is `pseudo_noise(s, t)`, which each sampler calls once for an interval
(seeds and exp_heun_2_x0_sde: once for each part of a step). Guidance (names with cfg_pp):
u + SCALE (c - u) with the unconditional model of golden_problem. Flow (options with "flow"): the
grid is sigma / (1 + sigma), the start x / (1 + sigma), and the result is x / (1 - t) again.
"""

from __future__ import annotations

import importlib
import sys
import types
from unittest import mock

import torch

import golden_problem as problem

torch.set_default_dtype(torch.float64)

ETAS = [{"eta": 0.0}, {"eta": 0.5}, {"eta": 1.0, "s_noise": 0.9}]
CASES: dict[str, list[dict]] = {
    "er_sde": [{"max_stage": n} for n in (1, 2, 3)] + [{"s_noise": 0.0}],
    "seeds_2": [*ETAS, {"r": 0.3}, {"solver_type": "phi_2"}],
    "seeds_3": [*ETAS, {"r_1": 0.25, "r_2": 0.5}],
    "exp_heun_2_x0": [{}, {"solver_type": "phi_1"}],
    "exp_heun_2_x0_sde": ETAS,
    "sa_solver": [
        {},
        {"tau": 0.0},
        {"tau": 0.6},
        {"predictor_order": 2, "corrector_order": 2, "simple_order_2": True},
        {"predictor_order": 2, "corrector_order": 0},
        {"predictor_order": 1, "corrector_order": 1, "tau": 0.0},
    ],
    "sa_solver_pece": [{}, {"tau": 0.0}],
    "res_multistep": [{}],
    "res_multistep_ancestral": ETAS,
    "gradient_estimation": [{}, {"ge_gamma": 1.5}],
    "heunpp2": [{}],
    # These three crash with max_order=1, and deis with deis_mode="rhoab" at any order.
    "ipndm": [{"max_order": n} for n in (2, 3, 4)],
    "ipndm_v": [{"max_order": n} for n in (2, 3, 4)],
    "deis": [{"max_order": n} for n in (2, 3, 4)],
    "ddpm": [{}],
    "lcm": [{}],
    "euler_cfg_pp": [{}],
    "euler_ancestral_cfg_pp": ETAS,
    "dpmpp_2s_ancestral_cfg_pp": ETAS,
    "dpmpp_2m_cfg_pp": [{}],
    "res_multistep_cfg_pp": [{}],
    "res_multistep_ancestral_cfg_pp": [{"eta": 1.0}],
    "gradient_estimation_cfg_pp": [{}],
    "uni_pc": [{"variant": "bh1"}, {"variant": "bh2"}],
    # On flow models some samplers do something else.
    "euler": [{"flow": True}],
    "euler_ancestral": [{**eta, "flow": True} for eta in ETAS],
    "dpm_2_ancestral": [{**eta, "flow": True} for eta in ETAS],
    "dpmpp_2s_ancestral": [{**eta, "flow": True} for eta in ETAS],
}
# Also on flow models.
CASES["seeds_2"] += [{"eta": 0.5, "flow": True}]
CASES["er_sde"] += [{"max_stage": 3, "flow": True}]


class AnyClass(type):
    """A class that has every attribute."""

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return AnyClass(name, (), {"__init__": lambda self, *args, **kwargs: None})


class Anything(types.ModuleType):
    """A module that has every attribute, for what samplers import and never use."""

    __path__ = ()
    __getattr__ = AnyClass.__getattr__


def load(checkout: str):
    """ComfyUI's modules of samplers, schedulers and noise levels, without its models."""
    sys.path.insert(0, checkout)
    comfy = importlib.import_module("comfy")

    def betas(kind, n, linear_start, linear_end, cosine_s):
        assert kind == "linear"  # which is what ComfyUI calls scaled_linear
        return torch.linspace(linear_start**0.5, linear_end**0.5, n) ** 2

    def catch(options, function, disable_cfg1_optimization=False):
        return {**options, "post_cfg": function}

    for name in (
        *("model_management", "sampler_helpers", "patcher_extension", "hooks", "context_windows"),
        *("utils", "ldm", "ldm.modules", "ldm.modules.diffusionmodules", "model_patcher"),
        "ldm.modules.diffusionmodules.util",
    ):
        module = sys.modules[f"comfy.{name}"] = Anything(f"comfy.{name}")
        setattr(comfy, name, module)
    sys.modules["comfy.ldm.modules.diffusionmodules.util"].make_beta_schedule = betas
    sys.modules["comfy.model_patcher"].set_model_options_post_cfg_function = catch
    for name in ("comfy_api", "comfy_api.latest"):
        sys.modules[name] = Anything(name)
    utils = Anything("comfy.k_diffusion.utils")
    utils.append_dims = lambda x, ndim: x[(..., *(None,) * (ndim - x.ndim))]
    sys.modules["comfy.k_diffusion.utils"] = utils
    names = (
        *("comfy.k_diffusion.sampling", "comfy.samplers", "comfy.model_sampling"),
        *("comfy.extra_samplers.uni_pc", "comfy_extras.nodes_align_your_steps"),
        *("comfy_extras.nodes_gits", "comfy_extras.nodes_optimalsteps"),
    )
    return {name.rsplit(".")[-1]: importlib.import_module(name) for name in names}


class Model:
    """What ComfyUI's samplers ask of a model; at its inner_model and that one's, too."""

    def __init__(self, modules, flow: bool) -> None:
        kind = modules["model_sampling"]
        parts = (
            (kind.ModelSamplingDiscreteFlow, kind.CONST)
            if flow
            else (kind.ModelSamplingDiscrete, kind.EPS)
        )
        self.model_sampling = type("ModelSampling", parts, {})()
        self.flow = flow
        self.inner_model = self.model_patcher = self

    def get_model_object(self, name: str):
        return self.model_sampling

    def __call__(self, x, sigma, model_options=None):
        if self.flow:
            x, sigma = x / (1 - sigma[:, None]), sigma / (1 - sigma)
        conditional = problem.denoise(x, sigma)
        if not model_options:
            return conditional
        unconditional = problem.denoise(x, sigma, problem.UNCONDITIONAL)
        guided = unconditional + problem.SCALE * (conditional - unconditional)
        return model_options["post_cfg"]({"uncond_denoised": unconditional, "denoised": guided})


def run(modules, name: str, options: dict, sigmas: torch.Tensor) -> torch.Tensor | None:
    """The sampler's result; None where ComfyUI crashes."""
    options = dict(options)
    flow = options.pop("flow", False)
    if "tau" in options:
        tau = options.pop("tau")
        options["tau_func"] = lambda sigma: tau
    x = problem.start(sigmas[0])
    if flow:
        x, sigmas = x / (1 + sigmas[0]), sigmas / (1 + sigmas)
    if name == "uni_pc":
        sampler = modules["uni_pc"].sample_unipc
        sigmas = sigmas.clone()  # it writes into them
    else:
        sampler = getattr(modules["sampling"], f"sample_{name}")
    # A sampler that has no option noise_sampler gets it through one that it wraps.
    with mock.patch.object(
        modules["sampling"], "default_noise_sampler", lambda x, seed=None: problem.pseudo_noise
    ):
        try:
            result = sampler(
                Model(modules, flow), x, sigmas, extra_args={}, disable=True, **options
            )
        except (IndexError, RuntimeError, ValueError) as error:
            print(f"{name} {options} crashed: {error}")
            return None
    if result.isnan().any():
        print(f"{name} {options} is not finite")
        return None
    return result / (1 - sigmas[-1]) if flow else result


def schedules(modules) -> list[dict]:
    """On Stable Diffusion's table of 1000 levels, which ComfyUI holds in float32."""
    model = Model(modules, flow=False).model_sampling
    rows = [
        {"name": name, "steps": steps, "settings": {}, "sigmas": sigmas}
        for name in modules["samplers"].SCHEDULER_NAMES
        for steps in (4, 10, 20)
        for sigmas in [modules["samplers"].calculate_sigmas(model, name, steps)]
    ]
    ends = {"sigma_min": problem.SIGMA_MIN, "sigma_max": problem.SIGMA_MAX}
    laplace = modules["sampling"].get_sigmas_laplace
    rows += [
        {"name": "laplace", "steps": n, "settings": ends, "sigmas": laplace(n, **ends)}
        for n in (4, 10)
    ]
    for name, module, key in (
        ("align_your_steps", "nodes_align_your_steps", "SD1"),
        ("align_your_steps", "nodes_align_your_steps", "SDXL"),
        ("align_your_steps", "nodes_align_your_steps", "SVD"),
        ("optimal_steps", "nodes_optimalsteps", "FLUX"),
    ):
        rows += [
            {"name": name, "steps": n, "settings": {"levels": key}, "sigmas": torch.tensor(sigmas)}
            for n in (7, 20)
            for sigmas in [loglinear(modules[module], modules[module].NOISE_LEVELS[key], n)]
        ]
    gits = modules["nodes_gits"]
    rows += [
        {"name": "gits", "steps": n, "settings": {"coefficient": 1.2}, "sigmas": torch.tensor(made)}
        for n in (5, 10, 30)
        for made in [
            gits.NOISE_LEVELS[1.2][n - 2]
            if n < 21
            else loglinear(gits, gits.NOISE_LEVELS[1.2][-1], n)
        ]
    ]
    return [{**row, "sigmas": problem.rounded(row["sigmas"], 9)} for row in rows]


def loglinear(module, levels: list[float], steps: int) -> list[float]:
    """As the nodes of published levels do it: interpolated, and then the last level is zero."""
    return [*module.loglinear_interp(levels, steps + 1)[:-1].tolist(), 0.0]


def main() -> None:
    modules = load(sys.argv[1])
    samples = [
        {"name": name, "options": options, "grid": grid, "result": problem.rounded(result)}
        for name, variants in CASES.items()
        for options in variants
        for grid, sigmas in problem.GRIDS.items()
        for result in [run(modules, name, options, sigmas)]
    ]
    guidance = {"unconditional": problem.UNCONDITIONAL, "scale": problem.SCALE}
    table = Model(modules, flow=False).model_sampling.sigmas
    problem.write(
        "comfyui",
        "ComfyUI 3cd7b32",
        samples,
        schedules(modules),
        guidance=guidance,
        names={
            "samplers": modules["samplers"].SAMPLER_NAMES,
            "schedulers": modules["samplers"].SCHEDULER_NAMES,
        },
        tau_interval=[
            Model(modules, flow=False).model_sampling.percent_to_sigma(p) for p in (0.2, 0.8)
        ],
        table_ends=[float(table[0]), float(table[-1])],
    )


if __name__ == "__main__":
    main()
