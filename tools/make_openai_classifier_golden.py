"""Writes tests/golden/openai_classifier.json: what OpenAI's own classifiers compute, at small sizes
with weights in closed form, and the shapes of the published ones, built by OpenAI's own script from
the flags in its README. tests/classifiers/test_guided_diffusion.py holds kdiff's against it.

    python tools/make_openai_classifier_golden.py CHECKOUT_OF_GUIDED_DIFFUSION
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

import torch

from make_openai_golden import fill

OUT = Path(__file__).parents[1] / "tests/golden/openai_classifier.json"

# kdiff's arguments; what differs in the original's is put right below.
SMALL = {
    "attention pool": {
        "channel_mult": [1, 2],
        "num_res_blocks": 2,
        "attention_levels": [1],
        "num_classes": 5,
        "pooled_size": 4,
        "num_head_channels": 16,
    },
    "mean": {
        "channel_mult": [1, 1, 2],
        "num_res_blocks": 1,
        "attention_levels": [2],
        "num_classes": 3,
        "num_head_channels": 32,
        "use_scale_shift_norm": False,
        "resblock_updown": False,
    },
}
SIZE, CHANNELS = 8, 32
PUBLISHED = {"64x64": 4, "128x128": 2, "256x256": 2, "512x512": 2}  # their --classifier_depth


def small(name: str) -> dict:
    arguments = {
        "model_channels": CHANNELS,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        **SMALL[name],
    }
    original = {"in_channels": 3, "image_size": SIZE, **arguments}
    original["out_channels"] = original.pop("num_classes")
    original["attention_resolutions"] = [2**i for i in original.pop("attention_levels")]
    original["pool"] = "attention" if original.pop("pooled_size", 0) else "adaptive"
    network = import_module("guided_diffusion.unet").EncoderUNetModel(**original).eval()
    fill(network)
    x = torch.arange(2 * 3 * SIZE * SIZE, dtype=torch.float32).cos().reshape(2, 3, SIZE, SIZE)
    x.requires_grad_()
    logits = network(x, torch.tensor([0.25, 999.0]))
    chosen = logits.log_softmax(1)[:, 1].sum()
    (slope,) = torch.autograd.grad(chosen, x)
    return {
        "arguments": arguments,
        "names": sorted(network.state_dict()),
        "logits": [round(v, 7) for v in logits.flatten().tolist()],
        "gradient of log p of class 1": [float(f"{v:.6g}") for v in slope.flatten()[::7].tolist()],
    }


def published(size: int, depth: int) -> dict:
    util = import_module("guided_diffusion.script_util")
    flags = {**util.classifier_defaults(), "image_size": size, "classifier_depth": depth}
    with torch.device("meta"):
        network = util.create_classifier(**flags)
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return {
        "shapes": hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest(),
        "parameters": sum(value.numel() for value in network.state_dict().values()),
        "image_size": size,
        "depth": depth,
    }


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    golden = {
        "small": {name: small(name) for name in SMALL},
        "published": {
            name: published(int(name.split("x")[0]), depth) for name, depth in PUBLISHED.items()
        },
    }
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
