"""Writes tests/golden/k_diffusion.json: what k-diffusion's samplers and schedules compute in
float64 on a small Gaussian mixture. tests/samplers/test_parity_k_diffusion.py holds kdiff against
it.

k-diffusion cannot be installed beside current packages, so this runs in an environment of its own:

    python -m venv .venv-kd
    .venv-kd/bin/pip install torch scipy tqdm torchdiffeq torchsde
    .venv-kd/bin/pip install --no-deps k-diffusion==0.1.1.post1
    .venv-kd/bin/python tools/make_k_diffusion_golden.py

Made with k-diffusion 0.1.1.post1 (its sampling.py is the same as at the repository's head) and
torch 2.15.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import torch

from golden_problem import (
    FOLDER,
    MODEL,
    SIGMA_MAX,
    SIGMA_MIN,
    START,
    denoise,
    pseudo_noise,
)

OUT = FOLDER / "k_diffusion.json"

# k-diffusion builds its schedules in the default dtype; in float64 they can be compared closely.
torch.set_default_dtype(torch.float64)

CHURN = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.1}
ANCESTRAL = [{"eta": 0.0}, {"eta": 0.5}, {"eta": 1.0, "s_noise": 0.9}]
CASES: dict[str, list[dict]] = {
    "sample_euler": [{}, CHURN],
    "sample_heun": [{}, CHURN],
    "sample_dpm_2": [{}, CHURN],
    "sample_euler_ancestral": ANCESTRAL,
    "sample_dpm_2_ancestral": ANCESTRAL,
    "sample_dpmpp_2s_ancestral": ANCESTRAL,
    "sample_dpmpp_sde": [*ANCESTRAL, {"r": 0.3}, {"r": 0.7, "eta": 0.5}],
    "sample_dpmpp_2m": [{}],
    "sample_dpmpp_2m_sde": [
        {**options, "solver_type": kind} for kind in ("midpoint", "heun") for options in ANCESTRAL
    ],
    "sample_dpmpp_3m_sde": ANCESTRAL,
    "sample_lms": [{"order": order} for order in (1, 2, 3, 4)],
}


def load_sampling():
    """k_diffusion.sampling alone: the package imports training code with many dependencies."""
    [folder] = importlib.util.find_spec("k_diffusion").submodule_search_locations
    package = types.ModuleType("k_diffusion")
    package.__path__ = [folder]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, ndim: x[(..., *(None,) * (ndim - x.ndim))]
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")


def run(sampling, name: str, options: dict, sigmas: torch.Tensor) -> list | None:
    """The sampler's result; None where k-diffusion crashes."""
    # A churning sampler draws in every step, needed or not, and does not say for which interval.
    draws = (pseudo_noise(s, s) for s in sigmas)
    torch.randn_like = lambda x: next(draws)
    takes_noise = "eta" in options or "r" in options
    kwargs = {"noise_sampler": pseudo_noise} if takes_noise else {}
    x = sigmas[0] * torch.tensor(START)
    try:
        result = getattr(sampling, name)(denoise, x, sigmas, disable=True, **kwargs, **options)
    except UnboundLocalError:
        return None
    return result.tolist()


def main() -> None:
    sampling = load_sampling()
    karras = {n: sampling.get_sigmas_karras(n, SIGMA_MIN, SIGMA_MAX) for n in (1, 4, 5, 10, 11)}
    grids = {
        "1, zero": karras[1],
        "4, zero": karras[4],
        "10, zero": karras[10],
        "4, sigma_min": karras[5][:-1],
        "10, sigma_min": karras[11][:-1],
    }
    samples = [
        {"name": name, "options": o, "grid": grid, "result": run(sampling, name, o, sigmas)}
        for name, variants in CASES.items()
        for o in variants
        for grid, sigmas in grids.items()
    ]
    ends = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX}
    schedules = [
        {"name": name, "steps": n, "settings": s, "sigmas": make(n, **s).tolist()}
        for n in (4, 10)
        for name, make, s in (
            ("karras", sampling.get_sigmas_karras, ends),
            ("karras", sampling.get_sigmas_karras, {**ends, "rho": 5.0}),
            ("exponential", sampling.get_sigmas_exponential, ends),
            ("polyexponential", sampling.get_sigmas_polyexponential, ends),
            ("polyexponential", sampling.get_sigmas_polyexponential, {**ends, "rho": 2.0}),
            ("vp", sampling.get_sigmas_vp, {}),
            ("vp", sampling.get_sigmas_vp, {"beta_d": 15.0, "beta_min": 0.2, "eps_s": 1e-2}),
        )
    ]
    golden = {
        "model": MODEL,
        "start": START,
        "grids": {key: sigmas.tolist() for key, sigmas in grids.items()},
        "samples": samples,
        "schedules": schedules,
    }
    lines = json.dumps(golden).replace('{"name"', '\n{"name"')
    OUT.write_text(lines + "\n")
    print(f"{len(samples)} results and {len(schedules)} schedules in {OUT}")


if __name__ == "__main__":
    main()
