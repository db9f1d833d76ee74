"""Writes tests/golden/score_sde.json.gz: the names and shapes in score_sde_pytorch's checkpoints,
and what its code computes in float64 with tiny networks of weights in the closed form of `fill`.

    git clone https://github.com/yang-song/score_sde_pytorch && pip install ml-collections
    python tools/make_score_sde_golden.py score_sde_pytorch

tests/checkpoints/test_score_sde.py holds kdiff against it.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.utils.cpp_extension

OUT = Path(__file__).parents[1] / "tests/golden/score_sde.json.gz"
SMALL = {"nf": 16, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "dropout": 0.0}
VARIANTS = {
    "vpsde": ("vp.cifar10_ddpmpp_continuous", SMALL),
    "subvpsde": ("subvp.cifar10_ddpmpp_continuous", SMALL),
    "vpsde, ncsnpp": ("vp.cifar10_ncsnpp_continuous", SMALL),
    "vpsde-discrete": ("vp.cifar10_ddpmpp", SMALL),
    "vesde": ("ve.cifar10_ncsnpp_continuous", {**SMALL, "num_res_blocks": 2}),
}
PUBLISHED = (
    "vp.cifar10_ddpmpp_continuous",
    "vp.cifar10_ddpmpp_deep_continuous",
    "vp.cifar10_ncsnpp_continuous",
    "vp.cifar10_ncsnpp_deep_continuous",
    "ve.cifar10_ncsnpp_continuous",
    "ve.cifar10_ncsnpp_deep_continuous",
    "subvp.cifar10_ddpmpp_continuous",
    "subvp.cifar10_ddpmpp_deep_continuous",
)


def fill(tensor):
    """sin(k), k = 1, 2, .., by the square root of the fan-in."""
    k = torch.arange(1, tensor.numel() + 1, dtype=torch.float64)
    scale = (tensor[0].numel() if tensor.ndim > 1 else 4) ** -0.5
    return (k.sin() * scale).reshape(tensor.shape)


def original(folder):
    torch.utils.cpp_extension.load = lambda *args, **kwargs: None  # its operators for GPUs
    sys.path.insert(0, folder)
    names = ("models.ncsnpp", "models.layers", "models.up_or_down_sampling", "models.utils")
    ncsnpp, layers, resampling, utils = map(importlib.import_module, names)
    embedding, kernel = layers.get_timestep_embedding, resampling._setup_kernel
    layers.get_timestep_embedding = lambda *args: embedding(*args).double()
    resampling._setup_kernel = lambda k: kernel(k).astype("float64")
    return SimpleNamespace(
        network=ncsnpp.NCSNpp, score=utils.get_score_fn, sde=importlib.import_module("sde_lib")
    )


def config(name):
    return importlib.import_module(f"configs.{name}").get_config()


def denoised(code, settings, network):
    """E[x0 | x] by Tweedie's formula, and x, both as kdiff sees them, at three times."""
    model, kinds = settings.model, {"vpsde": "VPSDE", "subvpsde": "subVPSDE", "vesde": "VESDE"}
    limits = (
        (model.sigma_min, model.sigma_max)
        if settings.training.sde == "vesde"
        else (model.beta_min, model.beta_max)
    )
    sde = getattr(code.sde, kinds[settings.training.sde])(*limits)
    continuous = settings.training.continuous
    score = code.score(sde, network, train=False, continuous=continuous)
    results = []
    for step in (19, 399, 899):
        t = torch.full((2,), step / 999, dtype=torch.float64)
        x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float64).cos().reshape(2, 3, 8, 8)
        alpha, std = sde.marginal_prob(torch.ones_like(x), t)
        alpha, std = alpha.flatten()[0].item(), std[0].item()
        if not continuous:
            alpha = sde.sqrt_alphas_cumprod[step].item()
            std = sde.sqrt_1m_alphas_cumprod[step].item()
        x0 = (x + std**2 * score(x, t)) / alpha
        scale, shift = (1, 0) if settings.data.centered else (2, -1)  # [0, 1] to [-1, 1]
        results.append(
            {
                "sigma": scale * std / alpha,
                "x_scale": scale / alpha,
                "x_shift": shift,
                "denoised": (scale * x0 + shift).flatten()[::11].tolist(),
            }
        )
    return results


def main() -> None:
    code = original(sys.argv[1])
    golden: dict[str, dict] = {"networks": {}, "published": {}}
    for variant, (name, small) in VARIANTS.items():
        settings = config(name)
        settings.model.update(small)
        settings.data.image_size = 8
        network = code.network(settings).eval().double()
        for parameter in network.parameters():
            parameter.data = fill(parameter)
        with torch.no_grad():
            golden["networks"][variant] = {
                "model": [[k, list(v.shape)] for k, v in network.state_dict().items()],
                "trained": [k for k, v in network.named_parameters() if v.requires_grad],
                "results": denoised(code, settings, network),
            }
    for name in PUBLISHED:
        network = code.network(config(name))
        golden["published"][name] = {
            "model": [[k, list(v.shape)] for k, v in network.state_dict().items()],
            "trained": sum(v.numel() for v in network.parameters() if v.requires_grad),
        }
    OUT.write_bytes(gzip.compress(json.dumps(golden).encode(), mtime=0))
    print(f"{OUT.stat().st_size} bytes in {OUT}")


if __name__ == "__main__":
    main()
