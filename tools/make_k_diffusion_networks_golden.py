"""Writes tests/golden/k_diffusion_networks.json.gz: the names and shapes in k-diffusion's
checkpoints, and what its code computes in float64 with tiny networks of weights in the closed form
of `fill`.

    git clone https://github.com/crowsonkb/k-diffusion && pip install einops safetensors torchvision
    K_DIFFUSION_USE_COMPILE=0 python tools/make_k_diffusion_networks_golden.py k-diffusion

Parts that only training needs are stubbed. Neighbourhood attention, which needs NATTEN there, is
computed one token at a time. tests/checkpoints/test_k_diffusion.py holds kdiff against it.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import types
from pathlib import Path

import torch

OUT = Path(__file__).parents[1] / "tests/golden/k_diffusion_networks.json.gz"

V1 = {
    "type": "image_v1",
    "input_channels": 3,
    "input_size": [8, 8],
    "mapping_out": 16,
    "depths": [1, 2],
    "channels": [32, 64],
    "self_attn_depths": [False, True],
    "sigma_data": 0.5,
    "sigma_min": 0.02,
    "sigma_max": 60,
}
V2 = {
    "type": "image_transformer_v2",
    "input_channels": 3,
    "input_size": [16, 16],
    "patch_size": [2, 2],
    "depths": [2, 1],
    "widths": [16, 32],
    "mapping_width": 16,
    "self_attns": [
        {"type": "neighborhood", "d_head": 8, "kernel_size": 3},
        {"type": "global", "d_head": 16},
    ],
}
WINDOWS = [{"type": "shifted-window", "d_head": 8, "window_size": 4}, {"type": "none"}]
SMALL = {
    "image_v1": {"model": V1},
    "image_v1, patches": {"model": {**V1, "patch_size": 2, "augment_wrapper": False}},
    "image_v1, variance": {"model": {**V1, "has_variance": True, "input_channels": 1}},
    "image_v1, skip_stages": {"model": {**V1, "skip_stages": 1}},
    "image_transformer_v2": {"model": V2},
    "image_transformer_v2, windows": {
        "model": {**V2, "self_attns": WINDOWS},
        "dataset": {"num_classes": 4},
    },
}


def fill(tensor):
    """sin(k), k = 1, 2, .., by the square root of the fan-in."""
    k = torch.arange(1, tensor.numel() + 1, dtype=torch.float64)
    scale = (tensor[0].numel() if tensor.ndim > 1 else 4) ** -0.5
    return (k.sin() * scale).reshape(tensor.shape)


def merge(base, head):
    if not isinstance(base, dict):
        return head
    both = {key: merge(base[key], head[key]) for key in base.keys() & head.keys()}
    return {**base, **head, **both}


class Augmented(torch.nn.Module):
    """`KarrasAugmentWrapper` where nothing is augmented."""

    def __init__(self, model):
        super().__init__()
        self.inner_model = model

    def forward(self, x, sigma, **extra):
        return self.inner_model(x, sigma, mapping_cond=x.new_zeros(len(x), 9), **extra)


def one_at_a_time(q, k, v, kernel, scale):
    """`natten.functional.na2d`, all `[N, H, W, heads, C]`."""
    n, height, width, heads, c = q.shape
    result = torch.zeros_like(q)
    for i in range(height):
        for j in range(width):
            top = min(max(i - kernel // 2, 0), height - kernel)
            left = min(max(j - kernel // 2, 0), width - kernel)
            near = slice(top, top + kernel), slice(left, left + kernel)
            keys, values = (t[:, *near].reshape(n, -1, heads, c) for t in (k, v))
            weight = scale * torch.einsum("nhc,nkhc->nkh", q[:, i, j], keys)
            result[:, i, j] = torch.einsum("nkh,nkhc->nhc", weight.softmax(1), values)
    return result


def original(folder):
    def stub(name, **contents):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents)

    for name in ("dctorch", "torchdiffeq", "torchsde", "skimage"):
        stub(name, functional=None, odeint=None)
    stub("jsonmerge", merge=merge)
    local = types.SimpleNamespace(na2d=one_at_a_time)
    stub("natten", functional=local, has_fused_na=lambda: True)
    stub("k_diffusion", __path__=[str(Path(folder) / "k_diffusion")])
    stub("k_diffusion.augmentation", KarrasAugmentWrapper=Augmented)
    package = sys.modules["k_diffusion"]
    package.augmentation = sys.modules["k_diffusion.augmentation"]
    for name in ("utils", "sampling", "layers", "models", "config"):
        setattr(package, name, importlib.import_module(f"k_diffusion.{name}"))
    return package


def state(network):
    return [[key, list(value.shape)] for key, value in network.state_dict().items()]


def denoised(package, config, network):
    size = config["model"]["input_channels"], *config["model"]["input_size"]
    x = torch.arange(2 * torch.Size(size).numel(), dtype=torch.float64).cos().reshape(2, *size)
    sigma = torch.tensor([0.3, 0.3], dtype=torch.float64)
    classes = config["dataset"]["num_classes"]  # the index of the null class
    extra = {"class_cond": torch.tensor([1, classes])} if classes else {}
    model = package.layers.Denoiser(network, sigma_data=config["model"]["sigma_data"])
    return model(x, sigma, **extra).flatten()[::7].tolist()


def main() -> None:
    package = original(sys.argv[1])
    golden: dict[str, dict] = {"networks": {}, "published": {}}
    for variant, config in SMALL.items():
        full = package.config.load_config(config)
        network = package.config.make_model(full).eval().double()
        for key, value in network.state_dict().items():
            value.copy_(value if key.endswith((".kernel", ".freqs")) else fill(value))
        with torch.no_grad():
            golden["networks"][variant] = {
                "config": config,
                "state": [
                    [
                        k,
                        s,
                        network.state_dict()[k].tolist()
                        if k.endswith((".kernel", ".freqs"))
                        else 0,
                    ]
                    for k, s in state(network)
                ],
                "denoised": denoised(package, full, network),
            }
    for file in sorted((Path(sys.argv[1]) / "configs").glob("*.json")):
        config = json.loads(file.read_text())
        with torch.device("meta"):
            network = package.config.make_model(package.config.load_config(config))
        golden["published"][file.stem] = {
            "config": {key: config[key] for key in ("model", "dataset")},
            "state": state(network),
        }
    OUT.write_bytes(gzip.compress(json.dumps(golden).encode(), mtime=0))
    print(f"{OUT.stat().st_size} bytes in {OUT}")


if __name__ == "__main__":
    main()
